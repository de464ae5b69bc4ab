"""Squeeze-and-excitation: channel attention (Hu et al. 2018, arXiv 1709.01507)."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from sasa_tf.layers.checks import check_layout, require_channels
from sasa_tf.layers.keras_mixin import KerasMixin
from sasa_tf.ops.checks import softmax_dtype


class SqueezeExcitation2DBase(KerasMixin):
  """Multiplies each channel by a gate that depends on the means of all channels.

  gate = sigmoid(relu(mean_HW(x) W1 + b1) W2 + b2), output = x * gate. It is one of the baselines of
  the paper's introduction: it weights channels, not positions.

  Example:
    `x = SqueezeExcitation2D(ratio=16)(x)` at the end of a residual block, before the addition.

  Input: [B, H, W, C]. H and W may be unknown.

  Output: [B, H, W, C].

  Weights, with S = max(1, C // ratio): `squeeze_kernel` [C, S], `squeeze_bias` [S],
  `excitation_kernel` [S, C], `excitation_bias` [C].
  """

  def __init__(
    self,
    ratio: int = 16,
    *,
    activation: Any = "relu",
    gating_activation: Any = "sigmoid",
    data_format: str | None = None,
    kernel_initializer: Any = "glorot_uniform",
    bias_initializer: Any = "zeros",
    kernel_regularizer: Any = None,
    bias_regularizer: Any = None,
    **kwargs: Any,
  ):
    """Creates the layer.

    Args:
      ratio: C divided by the width of the hidden layer.
      activation: of the hidden layer.
      gating_activation: of the gates.
      data_format: "channels_last", which does not depend on the setting of Keras.
      kernel_initializer: of both kernels.
      bias_initializer: of both biases.
      kernel_regularizer: of both kernels.
      bias_regularizer: of both biases.
      **kwargs: Keras arguments (`name`, `dtype`, `trainable`, ...).

    Raises:
      ValueError: `ratio` is not a positive int.
    """
    super().__init__(**kwargs)
    check_layout(data_format)
    if not isinstance(ratio, int) or ratio < 1:
      raise ValueError(f"ratio must be a positive int; received {ratio!r}.")
    keras = self._keras
    self.ratio = ratio
    self.activation = keras.activations.get(activation)
    self.gating_activation = keras.activations.get(gating_activation)
    self.kernel_initializer = keras.initializers.get(kernel_initializer)
    self.bias_initializer = keras.initializers.get(bias_initializer)
    self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)
    self.bias_regularizer = keras.regularizers.get(bias_regularizer)
    self.input_spec = keras.layers.InputSpec(ndim=4)

  def build(self, input_shape):
    """Creates the weights for inputs of `input_shape` [B, H, W, C]."""
    channels = require_channels(type(self).__name__, input_shape)
    squeezed = max(1, channels // self.ratio)
    self.squeeze_kernel, self.squeeze_bias = self._add_dense("squeeze", channels, squeezed)
    self.excitation_kernel, self.excitation_bias = self._add_dense("excitation", squeezed, channels)
    self.input_spec = self._keras.layers.InputSpec(ndim=4, axes={-1: channels})
    self.built = True

  def _add_dense(self, part: str, inputs: int, outputs: int):
    kernel = self._add_trained(
      f"{part}_kernel", (inputs, outputs), self.kernel_initializer, self.kernel_regularizer
    )
    bias = self._add_trained(
      f"{part}_bias", (outputs,), self.bias_initializer, self.bias_regularizer
    )
    return kernel, bias

  def call(self, inputs: tf.Tensor) -> tf.Tensor:
    """Gates the channels: [B, H, W, C] -> [B, H, W, C]."""

    def dense(x, kernel, bias):
      kernel, bias = (tf.cast(tf.convert_to_tensor(w), x.dtype) for w in (kernel, bias))
      return tf.matmul(x, kernel) + bias

    inputs = self._check_inputs(inputs, [None, None, None, self.squeeze_kernel.shape[0]])
    # Sums over a large image overflow float16 and lose precision in bfloat16.
    means = tf.reduce_mean(tf.cast(inputs, softmax_dtype(inputs.dtype)), axis=[1, 2])
    means = tf.cast(means, inputs.dtype)
    squeezed = self.activation(dense(means, self.squeeze_kernel, self.squeeze_bias))
    gates = dense(squeezed, self.excitation_kernel, self.excitation_bias)
    return inputs * self.gating_activation(gates)[:, None, None]

  def compute_output_shape(self, input_shape) -> tuple[int | None, ...]:
    """Returns the shape of the input."""
    return tuple(input_shape)

  def get_config(self) -> dict[str, Any]:
    """Returns the arguments of the constructor, serialized."""
    keras = self._keras
    return super().get_config() | {
      "ratio": self.ratio,
      "activation": keras.activations.serialize(self.activation),
      "gating_activation": keras.activations.serialize(self.gating_activation),
      "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
      "bias_initializer": keras.initializers.serialize(self.bias_initializer),
      "kernel_regularizer": keras.regularizers.serialize(self.kernel_regularizer),
      "bias_regularizer": keras.regularizers.serialize(self.bias_regularizer),
    }
