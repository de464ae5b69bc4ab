"""Model Garden configurations: data only, never the models they describe."""

from sasa_tf import extras

extras.require(__name__, "official")
