"""Model Garden configurations. They contain data only and do not import the models."""

from sasa_tf import extras

extras.require(__name__, "official")
