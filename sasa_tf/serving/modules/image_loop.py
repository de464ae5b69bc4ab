"""Runs a model on a few images of a batch at a time, to bound the memory of its activations."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf

# Pixels of the images that are processed together, as images of 224 x 224. Operations of TensorFlow
# on a CPU keep one image in the cache, and four images in parallel occupy a few cores; compiled
# kernels need no more memory for eight images than that. A GPU needs many images to be busy.
_PIXELS = 224 * 224
_CPU_PIXELS, _PARALLEL_PIXELS = _PIXELS, 4 * _PIXELS
_KERNEL_PIXELS = 8 * _PIXELS
_GPU_PIXELS = 32 * _PIXELS

_Step = Callable[[tf.Tensor], Mapping[str, tf.Tensor]]


def images_on_cpu(height: int, width: int, *, with_kernels: bool) -> int:
  """Returns how many images of this size a CPU processes together; see `map_chunks`."""
  return _number(_KERNEL_PIXELS if with_kernels else _CPU_PIXELS, height, width)


def _number(pixels: int, height: int, width: int) -> int:
  return max(1, pixels // (height * width))


def map_chunks(step: _Step, images: tf.Tensor, *, with_kernels: bool) -> dict[str, tf.Tensor]:
  """Returns `step(images)`, computed for chunks of a few images by one loop of the graph.

  The size of the chunks depends on the device that runs the graph.

  Args:
    step: maps images [B, H, W, C] to outputs [B, ...], whose other sizes are static.
    images: [B, H, W, C] with static H and W. B may be unknown, and 0.
    with_kernels: whether the step calls the compiled kernels for CPUs.
  """
  height, width = images.shape[1:3]
  size: Any = images_on_cpu(height, width, with_kernels=with_kernels)
  if not with_kernels:
    device = tf.raw_ops.DeviceIndex(device_names=["CPU", "GPU"])  # 2 in an XLA program
    size = tf.where(device == 1, _number(_GPU_PIXELS, height, width), size)
  chunk = tf.TensorSpec([None, *images.shape[1:]], images.dtype)
  traced = tf.function(step).get_concrete_function(chunk)
  specs: Mapping[str, tf.TensorSpec] = traced.structured_outputs
  shapes = {name: tf.TensorShape([None, *spec.shape[1:]]) for name, spec in specs.items()}
  chunks = -(-tf.shape(images)[0] // size)
  arrays = {
    name: tf.TensorArray(spec.dtype, chunks, element_shape=shapes[name], infer_shape=False)
    for name, spec in specs.items()
  }

  def body(index: tf.Tensor, arrays: dict[str, tf.TensorArray]) -> Any:
    outputs = traced(images[index * size : (index + 1) * size])
    return index + 1, {name: each.write(index, outputs[name]) for name, each in arrays.items()}

  _, arrays = tf.while_loop(
    lambda index, _: index < chunks,
    body,
    (tf.constant(0), arrays),
    parallel_iterations=1 if with_kernels else _number(_PARALLEL_PIXELS, height, width),
  )
  return {
    name: tf.ensure_shape(each.concat(), [images.shape[0], *shapes[name][1:]])
    for name, each in arrays.items()
  }
