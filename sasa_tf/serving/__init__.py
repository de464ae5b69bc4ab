"""Modules that a SavedModel is made of, and their clients."""

from sasa_tf import extras

extras.require(__name__, "PIL", "official")
