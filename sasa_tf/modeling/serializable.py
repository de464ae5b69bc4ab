"""Serialization of functional models through the arguments of their constructors."""

from __future__ import annotations

import inspect
import types
from collections.abc import Collection
from typing import Any

from sasa_tf.errors import did_you_mean
from sasa_tf.layers import KerasMixin

# Arguments of Keras's models that the constructors pass on.
_KERAS_ARGUMENTS = ("name", "trainable")


class SerializableModel(KerasMixin):
  """Mixin of models that are rebuilt from the arguments of their constructor.

  The constructor calls `_save_init_args` after `super().__init__`.
  """

  @classmethod
  def _check_kwargs(cls, kwargs: Collection[str]) -> None:
    """Raises a TypeError for an argument that no model has. Keras 3 would ignore it."""
    for name in kwargs:
      if name not in _KERAS_ARGUMENTS:
        known = inspect.signature(cls.__init__).parameters
        names = [known_name for known_name in known if known_name not in ("self", "kwargs")]
        raise TypeError(
          f"{cls.__name__} got an unexpected keyword argument {name!r}. {did_you_mean(name, names)}"
        )

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
