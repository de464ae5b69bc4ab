"""Support for Keras 3 and tf_keras from one source.

Keras 3 (`import keras`, which is also `tf.keras`) and tf_keras (Keras 2, used by Model Garden) have
the same API for layers, initializers and regularizers. The base classes access it as `self._keras`.
The bindings `sasa_tf.keras` and `sasa_tf.tf_keras` set `_keras` to their module.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any

import tensorflow as tf

from sasa_tf.ops.autograph import without_autograph
from sasa_tf.ops.checks import require_shape

# Top-level package of a symbolic tensor's class -> the binding for that Keras version.
_BINDINGS = {"keras": "sasa_tf.keras", "tf_keras": "sasa_tf.tf_keras"}


def _keras_api_of(tensor: Any) -> str | None:
  """Returns "keras" or "tf_keras" for a symbolic tensor of that package, None for other values."""
  if type(tensor).__name__ != "KerasTensor":
    return None
  package = type(tensor).__module__.partition(".")[0]
  return package if package in _BINDINGS else None


if TYPE_CHECKING:

  class _KerasObject:
    """Members of Keras layers and models that the base classes use."""

    def __init__(self, *args: Any, **kwargs: Any): ...
    def __call__(self, *args: Any, **kwargs: Any) -> Any: ...
    def add_weight(self, *args: Any, **kwargs: Any) -> Any: ...
    def get_config(self) -> dict[str, Any]: ...
    def get_build_config(self) -> dict[str, Any] | None: ...
    def get_layer(self, name: str) -> Any: ...

    @property
    def name(self) -> str: ...
    @property
    def weights(self) -> list[Any]: ...
    @property
    def dtype_policy(self) -> Any: ...
    @dtype_policy.setter
    def dtype_policy(self, value: Any) -> None: ...
    @property
    def trainable(self) -> bool: ...
    @trainable.setter
    def trainable(self, value: bool) -> None: ...
else:
  _KerasObject = object


class KerasMixin(_KerasObject):
  """Mixin of layers and models that work with Keras 3 and tf_keras.

  It must precede the Keras class in the list of bases.

  Attributes:
    _keras: the Keras module of the binding.
  """

  _keras: ModuleType

  @without_autograph  # also of what Keras 2 would convert, `call`
  def __call__(self, *args: Any, **kwargs: Any) -> Any:
    """Calls the layer.

    Raises:
      TypeError: an argument is a symbolic tensor of the other Keras version.
    """
    # Keras would raise no error: the layer would become a constant of the graph and none of its
    # weights would be trained.
    own = self._keras.__name__
    for tensor in tf.nest.flatten((args, kwargs)):
      keras_api = _keras_api_of(tensor)
      if keras_api not in (None, own):
        name = type(self).__name__
        raise TypeError(
          f"{name} of {_BINDINGS[own]} was called on a symbolic tensor of {keras_api}; expected a "
          f"tensor of {own}, received {type(tensor).__module__}.KerasTensor of shape "
          f"{tensor.shape}. A layer of one Keras version inside a model of the other would not be "
          f"trained. Use `from {_BINDINGS[keras_api]} import {name}`."
        )
    return super().__call__(*args, **kwargs)

  def get_build_config(self) -> dict[str, Any] | None:
    """Returns what Keras saves to build the layer, and the import that loading needs.

    Keras 3 loads classes that are registered only, and prints the saved config in its error.
    """
    config = super().get_build_config()
    if config is None:
      return None
    return {**config, "hint": f"import {_BINDINGS[self._keras.__name__]} before loading the model"}

  def _check_inputs(self, inputs: tf.Tensor, built_shape: Sequence[int | None]) -> tf.Tensor:
    """Returns `inputs` with the static shape that the layer was built for.

    Needed because tf_keras does not check symbolic inputs against `input_spec`.

    Args:
      inputs: [B, H, W, C].
      built_shape: (B, H, W, C) that the layer was built for; None for a dimension that may vary.

    Raises:
      ValueError: the shapes are incompatible.
    """
    if not inputs.shape.is_compatible_with(built_shape):
      raise ValueError(
        f"{self.name} was built for inputs of shape {tuple(built_shape)}; received "
        f"{inputs.shape}. Create another layer for these inputs."
      )
    return require_shape(inputs, built_shape)

  def _add_trained(
    self,
    name: str,
    shape: tuple[int, ...],
    initializer: Any,
    regularizer: Any = None,
    autocast: bool = True,
  ) -> Any:
    """Creates a trainable weight.

    Args:
      name: of the weight.
      shape: of the weight.
      initializer: copied, so that the weight is drawn independently of the others.
      regularizer: of the weight, or None.
      autocast: False to keep the weight in float32 under mixed precision. Used for relative
        position embeddings, which are added to float32 logits.
    """
    return self.add_weight(
      name=name,
      shape=shape,
      initializer=self._fresh_initializer(initializer),
      regularizer=regularizer,
      trainable=True,
      autocast=autocast,
    )

  def _fresh_initializer(self, identifier: Any) -> Any:
    """Returns a new initializer object with the same configuration.

    In both Keras versions an unseeded initializer object returns the same values each time it is
    called, so a query and a key kernel of equal shape would start with equal values.
    """
    initializers = self._keras.initializers
    initializer = initializers.get(identifier)
    if isinstance(initializer, initializers.Initializer):
      return type(initializer).from_config(initializer.get_config())
    return initializer
