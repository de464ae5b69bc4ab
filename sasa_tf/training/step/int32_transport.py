"""Whole numbers of a batch on their way to a GPU."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf


class Int32Transport:
  """Lets tensors of int32 travel as int64, up to the program that takes them.

  TensorFlow keeps a GPU's int32 tensors in the memory of the host. Each step of a program of XLA
  then copies them, the copy waits until the device has nothing left to do, and so does the host,
  which is not ready with the next step: a device that idles for milliseconds a step. int64 tensors
  are copied ahead with the rest of their batch.
  """

  def __init__(self):
    self._dtypes: Any = None

  def wrap_dataset_fn(
    self, build: Callable[..., tf.data.Dataset]
  ) -> Callable[..., tf.data.Dataset]:
    """Returns a function like `build`, of a configuration, whose data set has int64 for int32."""

    def build_widened(params: Any, input_context: tf.distribute.InputContext | None = None):
      return self._widen(build(params, input_context))

    return build_widened

  def restore(self, inputs: Any) -> Any:
    """Returns an element of the widened data set as it was before, or all as it is without one.

    Args:
      inputs: the element; a mapping in it may have got further keys, which are left alone.
    """
    return _restored(inputs, self._dtypes)

  def _widen(self, dataset: tf.data.Dataset) -> tf.data.Dataset:
    spec = dataset.element_spec
    self._dtypes = tf.nest.map_structure(
      lambda leaf: tf.int32 if isinstance(leaf, tf.TensorSpec) and leaf.dtype == tf.int32 else None,
      spec,
    )

    def widen(*element):
      whole = element if type(spec) is tuple else element[0]
      return tf.nest.map_structure(
        lambda value, dtype: _as(value, dtype and tf.int64), whole, self._dtypes
      )

    return dataset.map(widen)


def _restored(value: Any, dtypes: Any) -> Any:
  if isinstance(dtypes, Mapping):
    return {key: _restored(part, dtypes.get(key)) for key, part in value.items()}
  if isinstance(dtypes, tuple):
    parts = [_restored(part, dtype) for part, dtype in zip(value, dtypes, strict=True)]
    return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
  return _as(value, dtypes)


def _as(value: Any, dtype: tf.DType | None) -> Any:
  return tf.cast(value, dtype) if isinstance(value, tf.Tensor) and dtype is not None else value
