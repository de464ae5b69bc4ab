"""How models of Keras's functional API remember what they were made of."""

from __future__ import annotations

import types
from typing import Any

from sasa_tf.layers import KerasBound


class ConfiguredModel(KerasBound):
  """Mixin of models that are rebuilt from their constructor's arguments.

  The constructor calls `_remember` last, after Keras's.
  """

  def _remember(self, **arguments: Any) -> None:
    """Keeps the constructor's arguments, serialised."""
    # Not a dict, which both Kerases would wrap and track.
    self._arguments = types.SimpleNamespace(**arguments)

  def get_config(self) -> dict[str, Any]:
    """Returns the constructor's arguments, serialised."""
    return {"name": self.name, "trainable": self.trainable, **vars(self._arguments)}

  @classmethod
  def from_config(cls, config: dict[str, Any], custom_objects: Any = None):
    """Builds the model from `get_config`'s result."""
    del custom_objects  # the arguments name none
    return cls(**config)
