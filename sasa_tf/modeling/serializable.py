"""Serialization of functional models through the arguments of their constructors."""

from __future__ import annotations

import types
from typing import Any

from sasa_tf.layers import KerasMixin


class SerializableModel(KerasMixin):
  """Mixin of models that are rebuilt from the arguments of their constructor.

  The constructor calls `_save_init_args` after `super().__init__`.
  """

  def _save_init_args(self, **arguments: Any) -> None:
    """Saves the arguments of the constructor, serialized."""
    # Not a dict, because Keras 3 and tf_keras would wrap and track it.
    self._arguments = types.SimpleNamespace(**arguments)

  def get_config(self) -> dict[str, Any]:
    """Returns the arguments of the constructor, serialized."""
    return {"name": self.name, "trainable": self.trainable, **vars(self._arguments)}

  @classmethod
  def from_config(cls, config: dict[str, Any], custom_objects: Any = None):
    """Creates the model from the result of `get_config`."""
    del custom_objects  # the arguments contain no custom objects
    return cls(**config)
