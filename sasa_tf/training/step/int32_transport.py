"""Moves the int32 tensors of a batch to the GPU as int64."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf


class Int32Transport:
  """Converts int32 tensors to int64 in the input pipeline, and back in the compiled step.

  TensorFlow keeps int32 tensors of a GPU in host memory. An XLA program then copies them to the
  device in every step. The copy waits until the device is idle, and the host waits for the copy,
  so that the device idles for milliseconds per step. int64 tensors are copied with the rest of the
  batch, ahead of time.
  """

  def __init__(self):
    self._dtypes: Any = None

  def wrap_dataset_fn(
    self, dataset_fn: Callable[..., tf.data.Dataset]
  ) -> Callable[..., tf.data.Dataset]:
    """Returns a function like `dataset_fn`, whose dataset has int64 instead of int32.

    Args:
      dataset_fn: takes a data configuration and an optional `tf.distribute.InputContext`.
    """

    def wrapped(params: Any, input_context: tf.distribute.InputContext | None = None):
      return self._cast_dataset(dataset_fn(params, input_context))

    return wrapped

  def restore(self, inputs: Any) -> Any:
    """Returns an element of the wrapped dataset with its original dtypes.

    Without a wrapped dataset, the element is returned unchanged.

    Args:
      inputs: the element. Keys that were added to its mappings are returned unchanged.
    """
    return _restore_dtypes(inputs, self._dtypes)

  def _cast_dataset(self, dataset: tf.data.Dataset) -> tf.data.Dataset:
    spec = dataset.element_spec
    self._dtypes = tf.nest.map_structure(
      lambda leaf: tf.int32 if isinstance(leaf, tf.TensorSpec) and leaf.dtype == tf.int32 else None,
      spec,
    )

    def cast(*components):
      element = components if type(spec) is tuple else components[0]
      return tf.nest.map_structure(
        lambda value, dtype: _cast(value, dtype and tf.int64), element, self._dtypes
      )

    return dataset.map(cast)


def _restore_dtypes(value: Any, dtypes: Any) -> Any:
  if isinstance(dtypes, Mapping):
    return {key: _restore_dtypes(part, dtypes.get(key)) for key, part in value.items()}
  if isinstance(dtypes, tuple):
    parts = [_restore_dtypes(part, dtype) for part, dtype in zip(value, dtypes, strict=True)]
    return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
  return _cast(value, dtypes)


def _cast(value: Any, dtype: tf.DType | None) -> Any:
  return tf.cast(value, dtype) if isinstance(value, tf.Tensor) and dtype is not None else value
