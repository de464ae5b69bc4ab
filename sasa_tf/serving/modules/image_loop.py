"""Runs a model on the images of a batch one by one, to bound the memory of its activations."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import tensorflow as tf

# Pixels of the images that are processed at the same time: 4 images of 224 x 224. They occupy a
# few cores, and take less memory than a ResNet-50 of convolutions takes for a batch of 32.
_PARALLEL_PIXELS = 4 * 224 * 224


def map_images(
  step: Callable[[tf.Tensor], Mapping[str, tf.Tensor]], images: tf.Tensor
) -> dict[str, tf.Tensor]:
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
