"""Warns that Keras's weight quantization does not change the layers of this library."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Iterator
from types import ModuleType
from typing import Any

from sasa_tf.layers.keras_mixin import KerasMixin


def warn_about_quantization(keras: ModuleType) -> None:
  """Makes `Model.quantize` of a Keras version warn about the layers that stay float.

  Keras quantizes `Dense`, `EinsumDense` and `Embedding`, and skips layers without quantized form.

  Args:
    keras: Keras 3 or tf_keras, which has no quantization. Nothing happens if it warns already.
  """
  method = getattr(keras.Model, "quantize", None)
  if method is not None and not hasattr(method, "_warns_about_layers"):
    keras.Model.quantize = _with_warning(method)


def _float_layers(model: Any) -> Iterator[str]:
  """Yields the names of the layers with weights of this library, also in nested models."""
  for layer in model.layers:
    if hasattr(layer, "layers"):
      yield from _float_layers(layer)
    elif isinstance(layer, KerasMixin) and layer.weights:
      yield layer.name


def _with_warning(method: Any) -> Any:
  @functools.wraps(method)
  def quantize(self, *args, **kwargs):
    result = method(self, *args, **kwargs)
    names = list(_float_layers(self))
    if names:
      warnings.warn(
        f"Keras does not quantize these layers of sasa_tf, which stay float: {', '.join(names)}. "
        "For int8 inference, convert the model to LiteRT with a representative data set.",
        stacklevel=2,
      )
    return result

  vars(quantize)["_warns_about_layers"] = True
  return quantize
