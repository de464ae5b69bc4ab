"""Model Garden tasks, where the stock one does not do."""

from sasa_tf import extras

extras.require(__name__, "official", "tf_keras")
