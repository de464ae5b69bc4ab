"""Modules that a SavedModel is made of, and their clients."""
