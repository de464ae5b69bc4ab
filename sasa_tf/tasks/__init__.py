"""Model Garden tasks that differ from the stock ones."""

from sasa_tf import extras

extras.require(__name__, "official", "tf_keras")
