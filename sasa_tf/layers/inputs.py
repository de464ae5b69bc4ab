"""What layers must know of their inputs."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf


def known_channels(layer: str, input_shape: Sequence[int | None]) -> int:
  """Returns the channels C of `input_shape` [B, H, W, C].

  Args:
    layer: the layer's class name, for the message.
    input_shape: that the layer is built for.

  Raises:
    ValueError: C is unknown.
  """
  channels = tuple(input_shape)[-1]
  if channels is None:
    raise ValueError(
      f"{layer} needs to know the channels C of its input when it is built; received shape "
      f"{tuple(input_shape)}. Give the last dimension, as in Input([None, None, 64])."
    )
  return channels


def checked_inputs(layer: str, inputs: tf.Tensor, built_shape: Sequence[int | None]) -> tf.Tensor:
  """Returns `inputs`, held to the shape that the layer was built for.

  tf_keras does not hold symbolic inputs to `input_spec`.

  Args:
    layer: the layer's name, for the message.
    inputs: [B, H, W, C].
    built_shape: what is known of [B, H, W, C] since the layer was built, None for the rest.

  Raises:
    ValueError: the shapes disagree.
  """
  if not inputs.shape.is_compatible_with(built_shape):
    raise ValueError(
      f"{layer} was built for inputs of shape {tuple(built_shape)}; received {inputs.shape}. Make "
      "another layer for other inputs."
    )
  return tf.ensure_shape(inputs, built_shape)
