"""Non-local block: a residual of global attention (Wang et al. 2018, arXiv 1711.07971)."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from sasa_tf import ops
from sasa_tf.layers.inputs import checked_inputs, known_channels
from sasa_tf.layers.keras_mixin import KerasBound


class NonLocal2DBase(KerasBound):
  """x + batch_norm(attention(x) W), with one head of attention from every pixel to all.

  The embedded Gaussian form. Batch norm's gamma starts at zero, so that the block starts as the
  identity and can be put into a trained network. Among the baselines that the paper's introduction
  argues against: attention added to convolutions, without positions, where few pixels are left.

  Example:
    `x = NonLocal2D()(x)` between two residual blocks.

  Input: [B, H, W, C], H and W known or not. Time and memory grow with (H W)^2.
  Output: as the input.

  Weights, with I = `inner_filters`: `query_kernel`, `key_kernel`, `value_kernel` [C, I],
  `output_kernel` [I, C], and those of the batch norm `norm`. There are no biases: the softmax
  cancels that of the keys, the batch norm those of values and output.
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
    gamma_initializer: Any = "zeros",
    kernel_initializer: Any = "glorot_uniform",
    kernel_regularizer: Any = None,
    **kwargs: Any,
  ):
    """Creates the layer.

    Args:
      inner_filters: I, the width of queries, keys and values; None is C // 2, as in the paper.
      subsample: whether keys and values are max-pooled over 2x2 pixels, which takes a quarter of
        the work; at the right and lower border over those that exist.
      scale: multiplies the query. None is I ** -0.5, as in the authors' released code; their
        paper has 1.0, with which wide layers start out with a saturated softmax.
      norm_momentum: of batch norm's moving averages.
      norm_epsilon: of batch norm.
      use_sync_bn: whether batch norm sees the batch of all replicas.
      gamma_initializer: of batch norm's factors.
      kernel_initializer: of the four projections.
      kernel_regularizer: of the four projections.
      **kwargs: Keras's own (`name`, `dtype`, `trainable`, ...).

    Raises:
      ValueError: `inner_filters` is neither None nor a positive int.
    """
    super().__init__(**kwargs)
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
    channels = known_channels(type(self).__name__, input_shape)
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
    """Adds what all pixels say: [B, H, W, C] -> [B, H, W, C]."""

    def project(x, kernel):
      return tf.tensordot(x, tf.cast(tf.convert_to_tensor(kernel), x.dtype), axes=1)

    inputs = checked_inputs(self.name, inputs, [None, None, None, self.query_kernel.shape[0]])
    query, key, value = (
      project(inputs, kernel) for kernel in (self.query_kernel, self.key_kernel, self.value_kernel)
    )
    if self.subsample:
      key, value = (tf.nn.max_pool2d(x, 2, 2, "SAME") for x in (key, value))
    attended = ops.global_attention_2d(
      *(x[..., None, :] for x in (query, key, value)),
      scale=self.inner_filters**-0.5 if self.scale is None else self.scale,
    )
    outputs = project(tf.squeeze(attended, axis=3), self.output_kernel)
    return inputs + self.norm(tf.ensure_shape(outputs, inputs.shape), training=training)

  def compute_output_shape(self, input_shape) -> tuple[int | None, ...]:
    """Returns the input's shape."""
    return tuple(input_shape)

  def get_config(self) -> dict[str, Any]:
    """Returns the constructor's arguments, serialised; `inner_filters` as built."""
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
