"""A run around Model Garden's trainer: configuration, checks, strategy, progress."""

from sasa_tf import extras

extras.require(__name__, "official", "tf_keras")
