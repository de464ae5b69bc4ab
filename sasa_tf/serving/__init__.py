"""Export of trained models as SavedModel and LiteRT, and clients of the exported models."""

from sasa_tf import extras

extras.require(__name__, "PIL", "official")
