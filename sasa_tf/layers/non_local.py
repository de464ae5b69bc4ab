"""Non-local block: a residual of global attention (Wang et al. 2018, arXiv 1711.07971)."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from sasa_tf import ops
from sasa_tf.layers.checks import check_layout, require_channels
from sasa_tf.layers.keras_mixin import KerasMixin
from sasa_tf.ops.checks import with_static_shape


class NonLocal2DBase(KerasMixin):
  """x + batch_norm(attention(x) W), with one head of attention from every pixel to all pixels.

  This is the embedded Gaussian form. Gamma of the batch norm is initialized to zero, so that the
  block is initially the identity and can be inserted into a trained network. It is one of the
  baselines of the paper's introduction, which add attention to convolutions.

  Example:
    `x = NonLocal2D()(x)` between two residual blocks.

  Input: [B, H, W, C]. H and W may be unknown. Time and memory grow with (H W)^2.

  Output: [B, H, W, C].

  Weights, with I = `inner_filters`: `query_kernel`, `key_kernel`, `value_kernel` [C, I],
  `output_kernel` [I, C], and those of the batch norm `norm`. There are no biases: the softmax
  cancels the bias of the keys, the batch norm those of values and output.
  """

  def __init__(
    self,
    inner_filters: int | None = None,
    subsample: bool = True,
    *,
    scale: float | None = None,
    norm_momentum: float = 0.9,
    norm_epsilon: float = 1e-5,
    use_sync_bn: bool = False,
    data_format: str | None = None,
    gamma_initializer: Any = "zeros",
    kernel_initializer: Any = "glorot_uniform",
    kernel_regularizer: Any = None,
    **kwargs: Any,
  ):
    """Creates the layer.

    Args:
      inner_filters: width I of queries, keys and values; C // 2 by default, as in the paper.
      subsample: whether keys and values are max-pooled over 2x2 pixels, which reduces the work to a
        quarter. Windows at the right and lower border cover the pixels inside the image.
      scale: factor of the query; I ** -0.5 by default, as in the code of the authors. Their paper
        uses 1.0, with which the softmax of wide layers is saturated initially.
      norm_momentum: momentum of the moving averages of batch norm.
      norm_epsilon: epsilon of batch norm.
      use_sync_bn: whether batch norm uses the statistics of all replicas.
      data_format: "channels_last", which does not depend on the setting of Keras.
      gamma_initializer: of gamma in batch norm.
      kernel_initializer: of the four projections.
      kernel_regularizer: of the four projections.
      **kwargs: Keras arguments (`name`, `dtype`, `trainable`, ...).

    Raises:
      ValueError: `inner_filters` is neither None nor a positive int.
    """
    super().__init__(**kwargs)
    check_layout(data_format)
    if inner_filters is not None and (not isinstance(inner_filters, int) or inner_filters < 1):
      raise ValueError(
        f"inner_filters must be a positive int, or None for half of the input's channels; "
        f"received {inner_filters!r}."
      )
    keras = self._keras
    self.inner_filters = inner_filters
    self.subsample = bool(subsample)
    self.scale = scale
    self.norm_momentum = norm_momentum
    self.norm_epsilon = norm_epsilon
    self.use_sync_bn = bool(use_sync_bn)
    self.gamma_initializer = keras.initializers.get(gamma_initializer)
    self.kernel_initializer = keras.initializers.get(kernel_initializer)
    self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)
    self.norm = keras.layers.BatchNormalization(
      momentum=norm_momentum,
      epsilon=norm_epsilon,
      synchronized=self.use_sync_bn,
      gamma_initializer=self._fresh_initializer(self.gamma_initializer),
      dtype=self.dtype_policy,
      name="norm",
    )
    self.input_spec = keras.layers.InputSpec(ndim=4)

  def build(self, input_shape):
    """Creates the weights for inputs of `input_shape` [B, H, W, C]."""
    channels = require_channels(type(self).__name__, input_shape)
    self.inner_filters = self.inner_filters or max(1, channels // 2)
    self.query_kernel, self.key_kernel, self.value_kernel = (
      self._add_projection(part, channels, self.inner_filters) for part in ("query", "key", "value")
    )
    self.output_kernel = self._add_projection("output", self.inner_filters, channels)
    self.norm.build(tuple(input_shape))
    self.input_spec = self._keras.layers.InputSpec(ndim=4, axes={-1: channels})
    self.built = True

  def _add_projection(self, part: str, inputs: int, outputs: int):
    return self._add_trained(
      f"{part}_kernel", (inputs, outputs), self.kernel_initializer, self.kernel_regularizer
    )

  def call(self, inputs: tf.Tensor, training: bool | None = None) -> tf.Tensor:
    """Adds the attention to all pixels: [B, H, W, C] -> [B, H, W, C]."""

    def project(x, kernel):
      return tf.tensordot(x, tf.cast(tf.convert_to_tensor(kernel), x.dtype), axes=1)

    inputs = self._check_inputs(inputs, [None, None, None, self.query_kernel.shape[0]])
    query, key, value = (
      project(inputs, kernel) for kernel in (self.query_kernel, self.key_kernel, self.value_kernel)
    )
    if self.subsample:
      key, value = (tf.nn.max_pool2d(x, 2, 2, "SAME") for x in (key, value))
    attended = ops.global_attention_2d(
      *(x[..., None, :] for x in (query, key, value)),
      scale=query.shape[-1] ** -0.5 if self.scale is None else self.scale,
    )
    outputs = project(tf.squeeze(attended, axis=3), self.output_kernel)
    return inputs + self.norm(with_static_shape(outputs, inputs.shape), training=training)

  def compute_output_shape(self, input_shape) -> tuple[int | None, ...]:
    """Returns the shape of the input."""
    return tuple(input_shape)

  def get_config(self) -> dict[str, Any]:
    """Returns the arguments of the constructor, serialized; `inner_filters` as built."""
    keras = self._keras
    return super().get_config() | {
      "inner_filters": self.inner_filters,
      "subsample": self.subsample,
      "scale": self.scale,
      "norm_momentum": self.norm_momentum,
      "norm_epsilon": self.norm_epsilon,
      "use_sync_bn": self.use_sync_bn,
      "gamma_initializer": keras.initializers.serialize(self.gamma_initializer),
      "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
      "kernel_regularizer": keras.regularizers.serialize(self.kernel_regularizer),
    }
