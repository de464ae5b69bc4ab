"""Export of trained models to several formats, and clients of the exported models."""

from sasa_tf import extras

extras.require(__name__, "PIL", "official")
