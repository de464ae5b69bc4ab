"""Runs a model on a few images of a batch at a time, to bound the memory of its activations."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf

# Pixels of the images that are processed at the same time: 4 or 8 images of 224 x 224. They occupy
# a few cores, and take less memory than a ResNet-50 of convolutions takes for a batch of 32.
_PARALLEL_PIXELS = 4 * 224 * 224
_CHUNK_PIXELS = 8 * 224 * 224

_Step = Callable[[tf.Tensor], Mapping[str, tf.Tensor]]


def map_images(step: _Step, images: tf.Tensor) -> dict[str, tf.Tensor]:
  """Returns `step(images)`, computed for one image at a time by one loop of the graph.

  The step is traced for one image: TensorFlow optimizes a graph faster if all sizes are static.

  Args:
    step: maps images [1, H, W, C] to outputs [1, ...] of static shapes.
    images: [B, H, W, C] of an unknown B, which may be 0, with static H and W.
  """
  height, width = images.shape[1:3]
  traced = tf.function(step).get_concrete_function(
    tf.TensorSpec([1, *images.shape[1:]], images.dtype)
  )
  specs: Mapping[str, tf.TensorSpec] = traced.structured_outputs

  def of_one(image: tf.Tensor) -> dict[str, tf.Tensor]:
    return {name: output[0] for name, output in traced(image[None]).items()}

  return tf.map_fn(
    of_one,
    images,
    parallel_iterations=max(1, _PARALLEL_PIXELS // (height * width)),
    fn_output_signature={
      name: tf.TensorSpec(spec.shape[1:], spec.dtype) for name, spec in specs.items()
    },
  )


def map_chunks(step: _Step, images: tf.Tensor) -> dict[str, tf.Tensor]:
  """Returns `step(images)`, computed for chunks of a few images by one loop of the graph.

  Args:
    step: maps images [B, H, W, C] to outputs [B, ...], whose other sizes are static.
    images: [B, H, W, C] of an unknown B, which may be 0, with static H and W.
  """
  height, width = images.shape[1:3]
  chunk = max(1, _CHUNK_PIXELS // (height * width))
  traced = tf.function(step).get_concrete_function(tf.TensorSpec(images.shape, images.dtype))
  specs: Mapping[str, tf.TensorSpec] = traced.structured_outputs
  number = -(-tf.shape(images)[0] // chunk)
  shapes = {name: tf.TensorShape([None, *spec.shape[1:]]) for name, spec in specs.items()}
  arrays = {
    name: tf.TensorArray(spec.dtype, number, element_shape=shapes[name], infer_shape=False)
    for name, spec in specs.items()
  }

  def body(index: tf.Tensor, arrays: dict[str, tf.TensorArray]) -> Any:
    outputs = traced(images[index * chunk : (index + 1) * chunk])
    return index + 1, {name: each.write(index, outputs[name]) for name, each in arrays.items()}

  _, arrays = tf.while_loop(
    lambda index, _: index < number, body, (tf.constant(0), arrays), parallel_iterations=1
  )
  return {name: tf.ensure_shape(each.concat(), shapes[name]) for name, each in arrays.items()}
