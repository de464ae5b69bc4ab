"""The one place that knows that there are two Kerases.

Keras 3 (`import keras`, also what `tf.keras` is) and tf_keras (Model Garden's) offer the same words
for layers, initializers and regularizers. A base class reaches them through `self._keras`, the
module that its binding in `sasa_tf.keras` or `sasa_tf.tf_keras` sets.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import tensorflow as tf

# Top-level package that a symbolic tensor's class comes from -> the face of sasa_tf that serves it.
_FACES = {"keras": "sasa_tf.keras", "tf_keras": "sasa_tf.tf_keras"}


def _symbolic_flavour(tensor: Any) -> str | None:
  """Returns "keras" or "tf_keras" for a symbolic tensor of that package, None for all else."""
  if type(tensor).__name__ != "KerasTensor":
    return None
  package = type(tensor).__module__.partition(".")[0]
  return package if package in _FACES else None


class KerasBound:
  """Mixin of layers and models whose Keras is bound later; stands before Keras's class.

  Attributes:
    _keras: the Keras module of the binding.
  """

  _keras: ModuleType

  def __call__(self, *args: Any, **kwargs: Any) -> Any:
    """Calls the layer, or raises a TypeError on a symbolic tensor of the other Keras."""
    # Without this check a layer of the other Keras becomes a constant in the graph: no error, and
    # none of its weights are trained.
    own = self._keras.__name__
    for tensor in tf.nest.flatten((args, kwargs)):
      flavour = _symbolic_flavour(tensor)
      if flavour not in (None, own):
        name = type(self).__name__
        raise TypeError(
          f"{name} of {_FACES[own]} was called on a symbolic tensor of {flavour}; expected one of "
          f"{own}, received {type(tensor).__module__}.KerasTensor of shape {tensor.shape}. A layer "
          f"of one Keras inside of a model of the other would not be trained. Use "
          f"`from {_FACES[flavour]} import {name}`."
        )
    return super().__call__(*args, **kwargs)

  def _add_trained(
    self,
    name: str,
    shape: tuple[int, ...],
    initializer: Any,
    regularizer: Any = None,
    autocast: bool = True,
  ) -> Any:
    """Creates a trainable weight, whose initializer is its own.

    Without `autocast` mixed precision leaves it in float32: for what the softmax adds to its
    logits, which are float32 too.
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
    """Returns an initializer that shares no state with any other weight's.

    Both Kerases draw the same values each time that one unseeded initializer object is called, so
    query and key of one shape would start out equal.
    """
    initializers = self._keras.initializers
    initializer = initializers.get(identifier)
    if isinstance(initializer, initializers.Initializer):
      return type(initializer).from_config(initializer.get_config())
    return initializer
