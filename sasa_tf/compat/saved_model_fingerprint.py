"""The fingerprint of a SavedModel, for which TensorFlow has a public reader only."""

from __future__ import annotations

from tensorflow.python.saved_model import fingerprinting_utils


def write_fingerprint(saved_model: str) -> None:
  """Replaces fingerprint.pb after a change of saved_model.pb.

  Args:
    saved_model: SavedModel directory.
  """
  fingerprinting_utils.write_fingerprint(saved_model)
