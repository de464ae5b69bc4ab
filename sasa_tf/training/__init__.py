"""Training runs on top of Model Garden's trainer: configuration, checks, strategies, progress."""

from sasa_tf import extras

extras.require(__name__, "official", "tf_keras")
