"""Attention-augmented convolution (Bello et al. 2019, arXiv 1904.09925)."""

from __future__ import annotations

from typing import Any, get_args

import tensorflow as tf

from sasa_tf import ops
from sasa_tf.layers.checks import check_layout, equal_pair, require_channels
from sasa_tf.layers.keras_mixin import KerasMixin
from sasa_tf.layers.types import Positions
from sasa_tf.ops.checks import sizes, with_static_shape

POSITIONS: tuple[str, ...] = get_args(Positions)


class AttentionAugmentedConv2DBase(KerasMixin):
  """Concatenates a convolution and multi-head global attention; a replacement for `Conv2D`.

  The first `filters` - `value_filters` output channels come from the convolution, the others from
  attention of every pixel to all pixels and a pointwise projection. It is one of the baselines of
  the paper's introduction, which add attention to convolutions.

  With strides, the attention reads and attends to the average-pooled input, with windows of
  2 * strides - 1 pixels (3x3 for stride 2), so its cost is that of the output resolution.

  Example:
    `keras.layers.Conv2D(128, 3, padding="same")` becomes
    `AttentionAugmentedConv2D(128, 3, key_filters=160, value_filters=16)`.

  Input: [B, H, W, C]. With positions="relative", H and W must be known, because the embeddings
  depend on them; otherwise they may be unknown. Time and memory grow with (H W)^2.

  Output: [B, ceil(H / strides), ceil(W / strides), filters].

  Weights: `convolution_kernel` [K, K, C, filters - value_filters], or None if that is no channel;
  `query_kernel`, `key_kernel` [C, key_filters], `value_kernel` [C, value_filters],
  `output_kernel` [value_filters, value_filters]; with positions="relative", `relative_rows`
  [2H' - 1, D] and `relative_columns` [2W' - 1, D] with D = key_filters / num_heads and the output
  size H', W', shared by the heads.
  """

  def __init__(
    self,
    filters: int,
    kernel_size: int | tuple[int, int] = 3,
    *,
    key_filters: int,
    value_filters: int,
    num_heads: int = 8,
    positions: Positions = "relative",
    strides: int | tuple[int, int] = 1,
    padding: str = "same",
    data_format: str | None = None,
    kernel_initializer: Any = "glorot_uniform",
    relative_initializer: Any = None,
    kernel_regularizer: Any = None,
    relative_regularizer: Any = None,
    **kwargs: Any,
  ):
    """Creates the layer.

    Args:
      filters: output channels of convolution and attention together.
      kernel_size: of the convolution in pixels, an int or a pair of equal ones.
      key_filters: channels of queries and keys of all heads together; a multiple of `num_heads`.
      value_filters: output channels of the attention; a multiple of `num_heads`. If equal to
        `filters`, there is no convolution.
      num_heads: number of heads N.
      positions: "relative" adds q.r with learned row and column embeddings of every offset in the
        image; "absolute" adds fixed sinusoids to the input of the attention; "none" uses no
        position information.
      strides: of both convolution and attention, an int or a pair of equal ones.
      padding: "same", as in `Conv2D`.
      data_format: "channels_last", which does not depend on the setting of Keras.
      kernel_initializer: of the convolution and the projections.
      relative_initializer: of both embeddings; by default normal with standard deviation
        D ** -0.5.
      kernel_regularizer: of the convolution and the projections.
      relative_regularizer: of both embeddings.
      **kwargs: Keras arguments (`name`, `dtype`, `trainable`, ...).

    Raises:
      ValueError: an argument is out of range.
    """
    super().__init__(**kwargs)
    kernel_size = equal_pair("kernel_size", kernel_size)
    strides = equal_pair("strides", strides)
    check_layout(data_format, padding)
    counts = {
      "filters": filters,
      "key_filters": key_filters,
      "value_filters": value_filters,
      "num_heads": num_heads,
    }
    for name, count in counts.items():
      if not isinstance(count, int) or count < 1:
        raise ValueError(f"{name} must be a positive int; received {count!r}.")
    if key_filters % num_heads or value_filters % num_heads:
      raise ValueError(
        "key_filters and value_filters must be multiples of num_heads, because the heads split "
        f"them evenly; received key_filters={key_filters}, value_filters={value_filters} and "
        f"num_heads={num_heads}."
      )
    if value_filters > filters:
      raise ValueError(
        "value_filters must not exceed filters; received "
        f"value_filters={value_filters} and filters={filters}. Choose at most {filters}."
      )
    if positions not in POSITIONS:
      raise ValueError(f"positions must be one of {POSITIONS}; received {positions!r}.")
    keras = self._keras
    self.filters = filters
    self.kernel_size = kernel_size
    self.key_filters = key_filters
    self.value_filters = value_filters
    self.num_heads = num_heads
    self.positions = positions
    self.strides = strides
    self.kernel_initializer = keras.initializers.get(kernel_initializer)
    self.relative_initializer = keras.initializers.get(relative_initializer)
    self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)
    self.relative_regularizer = keras.regularizers.get(relative_regularizer)
    self.input_spec = keras.layers.InputSpec(ndim=4)

  def build(self, input_shape):
    """Creates the weights for inputs of `input_shape` [B, H, W, C]."""
    channels = require_channels(type(self).__name__, input_shape)
    keys, values = self.key_filters, self.value_filters
    window = (self.kernel_size, self.kernel_size)
    self.convolution_kernel = None
    if values < self.filters:
      self.convolution_kernel = self._add_kernel(
        "convolution", (*window, channels, self.filters - values)
      )
    self.query_kernel = self._add_kernel("query", (channels, keys))
    self.key_kernel = self._add_kernel("key", (channels, keys))
    self.value_kernel = self._add_kernel("value", (channels, values))
    self.output_kernel = self._add_kernel("output", (values, values))
    self._built_shape = (None, None, None, channels)
    self.relative_rows = self.relative_columns = None
    if self.positions == "relative":
      height, width = tuple(input_shape)[1:3]
      if height is None or width is None:
        raise ValueError(
          f"{type(self).__name__} with positions='relative' needs to know the H and W of its input "
          "when it is built, because it learns an embedding of every offset in the image; received "
          f"shape {tuple(input_shape)}. Set the input size, as in Input([224, 224, 3]) or "
          "input_shape=(224, 224, 3), or choose positions='absolute' or 'none'."
        )
      rows, columns = self._strided(height), self._strided(width)
      self.relative_rows = self._add_relative("relative_rows", rows)
      self.relative_columns = self._add_relative("relative_columns", columns)
      self._built_shape = (None, height, width, channels)
    self.input_spec = self._keras.layers.InputSpec(shape=self._built_shape)
    self.built = True

  def _add_kernel(self, part: str, shape: tuple[int, ...]):
    return self._add_trained(
      f"{part}_kernel", shape, self.kernel_initializer, self.kernel_regularizer
    )

  def _add_relative(self, name: str, size: int):
    head_dim = self.key_filters // self.num_heads
    initializer = self.relative_initializer or self._keras.initializers.RandomNormal(
      stddev=head_dim**-0.5
    )
    shape = (2 * size - 1, head_dim)
    return self._add_trained(name, shape, initializer, self.relative_regularizer, autocast=False)

  def call(self, inputs: tf.Tensor) -> tf.Tensor:
    """Applies the layer: [B, H, W, C] -> [B, ceil(H / strides), ceil(W / strides), filters]."""
    inputs = self._check_inputs(inputs, self._built_shape)
    attended = self._attend(inputs)
    if self.convolution_kernel is None:
      return attended
    kernel = tf.cast(tf.convert_to_tensor(self.convolution_kernel), inputs.dtype)
    convolved = tf.nn.conv2d(inputs, kernel, self.strides, "SAME")
    return tf.concat([convolved, attended], axis=-1)

  def _attend(self, inputs: tf.Tensor) -> tf.Tensor:
    """Attends: [B, H, W, C] -> [B, ceil(H / strides), ceil(W / strides), value_filters]."""

    def project(x, *kernels):
      kernels = [tf.cast(tf.convert_to_tensor(kernel), x.dtype) for kernel in kernels]
      return tf.tensordot(x, tf.concat(kernels, axis=-1), axes=1)

    if self.strides > 1:
      inputs = tf.nn.avg_pool2d(inputs, 2 * self.strides - 1, self.strides, "SAME")
    batch, height, width, _ = sizes(inputs)
    if self.positions == "absolute":
      positions = ops.sinusoidal_positions(height, width, self.query_kernel.shape[0])
      inputs += tf.cast(positions, inputs.dtype)
    projected = project(inputs, self.query_kernel, self.key_kernel, self.value_kernel)
    widths = [self.key_filters, self.key_filters, self.value_filters]
    heads = [
      tf.reshape(x, [batch, height, width, self.num_heads, channels // self.num_heads])
      for x, channels in zip(tf.split(projected, widths, axis=-1), widths, strict=True)
    ]
    relative = [
      None if table is None else tf.convert_to_tensor(table)
      for table in (self.relative_rows, self.relative_columns)
    ]
    scale = (self.key_filters // self.num_heads) ** -0.5
    attended = ops.global_attention_2d(*heads, *relative, scale=scale)
    attended = tf.reshape(attended, [batch, height, width, self.value_filters])
    attended = with_static_shape(attended, [*inputs.shape[:3], self.value_filters])
    return project(attended, self.output_kernel)

  def compute_output_shape(self, input_shape) -> tuple[int | None, ...]:
    """Returns (B, ceil(H / strides), ceil(W / strides), filters)."""
    batch, *size, _ = tuple(input_shape)
    strided = [None if s is None else self._strided(s) for s in size]
    return (batch, *strided, self.filters)

  def _strided(self, size: int) -> int:
    """Returns ceil(size / strides)."""
    return -(-size // self.strides)

  def get_config(self) -> dict[str, Any]:
    """Returns the arguments of the constructor, serialized."""
    keras = self._keras
    return super().get_config() | {
      "filters": self.filters,
      "kernel_size": self.kernel_size,
      "key_filters": self.key_filters,
      "value_filters": self.value_filters,
      "num_heads": self.num_heads,
      "positions": self.positions,
      "strides": self.strides,
      "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
      "relative_initializer": keras.initializers.serialize(self.relative_initializer),
      "kernel_regularizer": keras.regularizers.serialize(self.kernel_regularizer),
      "relative_regularizer": keras.regularizers.serialize(self.relative_regularizer),
    }
