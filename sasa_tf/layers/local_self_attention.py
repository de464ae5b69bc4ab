"""Local self-attention in the place of a spatial convolution (paper Sec. 3.1)."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from sasa_tf import ops
from sasa_tf.layers.heads import head_width
from sasa_tf.layers.inputs import checked_inputs, known_channels
from sasa_tf.layers.keras_mixin import KerasBound
from sasa_tf.ops.checks import window_geometry
from sasa_tf.ops.dispatch import check_implementation
from sasa_tf.ops.qkv_packing import split_qkv
from sasa_tf.ops.xla_barriers import fusion_barrier, recompute_barrier

POSITIONS = ("relative", "absolute", "none")


class LocalSelfAttention2DBase(KerasBound):
  """Multi-head self-attention over the window around each pixel; exchanges for `Conv2D`.

  Queries, keys and values are pointwise projections of the input; each pixel attends to the
  `kernel_size` window centred on it, separately in each of `num_heads` heads (paper Sec. 3.1,
  Eq. 3). There is no output projection. Output size is that of `Conv2D(padding="same")`.

  Example:
    `keras.layers.Conv2D(64, 3, strides=2, padding="same")` becomes
    `LocalSelfAttention2D(64, 7, strides=2)`.

  Input: [B, H, W, C], H and W known or not; the kernel may be larger than the feature map.
  Output: [B, ceil(H / strides), ceil(W / strides), filters].

  Weights: `query_kernel`, `key_kernel`, `value_kernel` [C, filters], their biases [filters] where
  used, `relative_rows` and `relative_columns` [K, D/2] with D = filters / num_heads, shared by the
  heads. None depends on H, W or the implementation.
  """

  def __init__(
    self,
    filters: int,
    kernel_size: int | tuple[int, int] = 7,
    num_heads: int = 8,
    positions: str = "relative",
    content: bool = True,
    border: str = "zero",
    dilation_rate: int | tuple[int, int] = 1,
    use_bias: bool = False,
    implementation: str = "auto",
    *,
    strides: int = 1,
    scale: float = 1.0,
    activation: Any = None,
    kernel_initializer: Any = "glorot_uniform",
    value_initializer: Any = None,
    bias_initializer: Any = "zeros",
    relative_initializer: Any = None,
    kernel_regularizer: Any = None,
    bias_regularizer: Any = None,
    relative_regularizer: Any = None,
    **kwargs: Any,
  ):
    """Creates the layer.

    Args:
      filters: output channels; a multiple of `num_heads`.
      kernel_size: odd int, or (rows, columns) of odd ints, in pixels.
      num_heads: N. Each head is D = filters / num_heads wide.
      positions: "relative" adds q.r with learned row and column embeddings (the paper's choice;
        D must be even); "absolute" adds fixed sinusoids to the layer's input; "none".
      content: False drops q.k and the key projection, so that attention is by relative position
        alone (paper Table 6).
      border: what a neighbour outside of the image is. "zero": a zero key and value that still
        takes part through q.r; "mask": it takes no part.
      dilation_rate: int or (rows, columns), in pixels.
      use_bias: whether the three projections have a bias.
      implementation: "auto" or one of `sasa_tf.ops.available_implementations()`.
      strides: average-pools the output over strides x strides pixels (paper Sec. 3.1); at the
        right and lower border over those that exist.
      scale: multiplies the query. The paper has none.
      activation: as `Conv2D`'s; applied last.
      kernel_initializer: of the three projections.
      value_initializer: of the value projection; `kernel_initializer` by default.
      bias_initializer: of the biases.
      relative_initializer: of both embeddings; by default normal with standard deviation
        D ** -0.5, so that q.r starts at the variance of one channel of q.
      kernel_regularizer: of the three projections.
      bias_regularizer: of the biases.
      relative_regularizer: of both embeddings.
      **kwargs: Keras's own (`name`, `dtype`, `trainable`, ...).

    Raises:
      ValueError: an argument out of range; the message says which, and how to mend it.
    """
    super().__init__(**kwargs)
    head_dim = head_width(filters, num_heads)
    if positions not in POSITIONS:
      raise ValueError(f"positions must be one of {POSITIONS}; received {positions!r}.")
    if positions == "relative" and head_dim % 2:
      raise ValueError(
        "positions='relative' needs an even head width, half of it for the row and half for the "
        f"column (paper Sec. 3.1); received filters={filters} / num_heads={num_heads} = "
        f"{head_dim}. Choose filters as a multiple of {2 * num_heads}, or another positions."
      )
    if not content and positions != "relative":
      raise ValueError(
        "content=False leaves only q.r (paper Table 6), so it needs positions='relative'; "
        f"received positions={positions!r}."
      )
    if not isinstance(strides, int) or strides < 1:
      raise ValueError(f"strides must be a positive int; received {strides!r}.")
    check_implementation(implementation)
    geometry = window_geometry(kernel_size, dilation_rate, border)
    keras = self._keras
    self.filters = filters
    self.kernel_size = geometry.kernel_size
    self.num_heads = num_heads
    self.head_dim = head_dim
    self.positions = positions
    self.content = bool(content)
    self.border = border
    self.dilation_rate = geometry.dilation_rate
    self.use_bias = bool(use_bias)
    self.implementation = implementation
    self.strides = strides
    self.scale = scale
    self.activation = keras.activations.get(activation)
    self.kernel_initializer = keras.initializers.get(kernel_initializer)
    self.value_initializer = keras.initializers.get(value_initializer)
    self.bias_initializer = keras.initializers.get(bias_initializer)
    self.relative_initializer = keras.initializers.get(relative_initializer)
    self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)
    self.bias_regularizer = keras.regularizers.get(bias_regularizer)
    self.relative_regularizer = keras.regularizers.get(relative_regularizer)
    self.input_spec = keras.layers.InputSpec(ndim=4)

  def build(self, input_shape):
    """Creates the weights for inputs of `input_shape` [B, H, W, C]."""
    channels = known_channels(type(self).__name__, input_shape)
    values = self.value_initializer or self.kernel_initializer
    self.query_kernel, self.query_bias = self._add_projection("query", channels)
    self.key_kernel, self.key_bias = (
      self._add_projection("key", channels) if self.content else (None, None)
    )
    self.value_kernel, self.value_bias = self._add_projection("value", channels, values)
    rows, columns = self.kernel_size
    self.relative_rows = self._add_relative("relative_rows", rows)
    self.relative_columns = self._add_relative("relative_columns", columns)
    self.input_spec = self._keras.layers.InputSpec(ndim=4, axes={-1: channels})
    self.built = True

  def _add_projection(self, part: str, channels: int, initializer: Any = None):
    kernel = self._add_trained(
      f"{part}_kernel",
      (channels, self.filters),
      initializer or self.kernel_initializer,
      self.kernel_regularizer,
    )
    if not self.use_bias:
      return kernel, None
    bias = self._add_trained(
      f"{part}_bias", (self.filters,), self.bias_initializer, self.bias_regularizer
    )
    return kernel, bias

  def _add_relative(self, name: str, size: int):
    if self.positions != "relative":
      return None
    initializer = self.relative_initializer or self._keras.initializers.RandomNormal(
      stddev=self.head_dim**-0.5
    )
    shape = (size, self.head_dim // 2)
    return self._add_trained(name, shape, initializer, self.relative_regularizer, autocast=False)

  def _with_positions(self, inputs: tf.Tensor) -> tf.Tensor:
    """Returns what is projected, [B, H, W, C]."""
    inputs = checked_inputs(self.name, inputs, [None, None, None, self.query_kernel.shape[0]])
    if self.positions != "absolute":
      return inputs
    height, width = tf.unstack(tf.shape(inputs)[1:3])
    positions = ops.sinusoidal_positions(height, width, inputs.shape[-1])
    return inputs + tf.cast(positions, inputs.dtype)

  def _projection(self, dtype: tf.DType) -> list[tf.Tensor]:
    """Returns the kernels side by side, and then the biases, where they are used."""

    def joined(weights):
      return tf.concat(
        [tf.cast(tf.convert_to_tensor(w), dtype) for w in weights if w is not None], axis=-1
      )

    kernel = joined([self.query_kernel, self.key_kernel, self.value_kernel])
    if not self.use_bias:
      return [kernel]
    return [kernel, joined([self.query_bias, self.key_bias, self.value_bias])]

  def _project(self, inputs: tf.Tensor, projection: list[tf.Tensor]) -> tf.Tensor:
    """Returns query, key (not without content) and value, [B, H, W, parts, N, D]."""
    kernel, *bias = projection
    # One matrix product for all projections reads the input once.
    projected = tf.tensordot(inputs, kernel, axes=1)
    if bias:
      projected += bias[0]
    parts = 3 if self.content else 2
    # No -1 among the sizes, which an empty batch would leave undecided.
    sizes = tf.concat([tf.shape(inputs)[:3], [parts, self.num_heads, self.head_dim]], axis=0)
    return tf.reshape(projected, sizes)

  def _window_arguments(self) -> dict[str, Any]:
    relative = {
      name: None if table is None else tf.convert_to_tensor(table)
      for name, table in (
        ("relative_rows", self.relative_rows),
        ("relative_columns", self.relative_columns),
      )
    }
    return relative | {
      "kernel_size": self.kernel_size,
      "dilation_rate": self.dilation_rate,
      "border": self.border,
      "scale": self.scale,
    }

  def call(self, inputs: tf.Tensor) -> tf.Tensor:
    """Attends: [B, H, W, C] -> [B, ceil(H / strides), ceil(W / strides), filters]."""
    source = fusion_barrier(self._with_positions(inputs))
    projection = self._projection(source.dtype)
    attended = ops.local_attention_2d_qkv_packed(
      self._project(source, projection),
      implementation=self.implementation,
      pool_size=self.strides,
      # QKV are three times as large as the inputs, and cheap to recompute.
      recompute_qkv=lambda earlier: self._project(source, recompute_barrier(earlier, projection)),
      **self._window_arguments(),
    )
    outputs = tf.reshape(attended, tf.concat([tf.shape(attended)[:3], [self.filters]], axis=0))
    return self.activation(tf.ensure_shape(outputs, [*attended.shape[:3], self.filters]))

  def attention_weights(self, inputs: tf.Tensor, pixels: tf.Tensor | None = None) -> tf.Tensor:
    """Returns the weights that the built layer gives to each window, to look at.

    Args:
      inputs: [B, H, W, C].
      pixels: integers [P, 2], the (row, column) of the queries wanted; None for all.

    Returns:
      As `sasa_tf.ops.local_attention_weights`: [B, H, W, N, K, K], or [B, P, N, K, K].
    """
    source = self._with_positions(tf.convert_to_tensor(inputs))
    projected = self._project(source, self._projection(source.dtype))
    query, key, _ = split_qkv(projected)
    return ops.local_attention_weights(query, key, pixels=pixels, **self._window_arguments())

  def compute_output_shape(self, input_shape) -> tuple[int | None, ...]:
    """Returns (B, ceil(H / strides), ceil(W / strides), filters)."""
    batch, *size, _ = tuple(input_shape)
    pooled = [None if s is None else -(-s // self.strides) for s in size]
    return (batch, *pooled, self.filters)

  def get_config(self) -> dict[str, Any]:
    """Returns the constructor's arguments, serialised."""
    keras = self._keras
    return super().get_config() | {
      "filters": self.filters,
      "kernel_size": self.kernel_size,
      "num_heads": self.num_heads,
      "positions": self.positions,
      "content": self.content,
      "border": self.border,
      "dilation_rate": self.dilation_rate,
      "use_bias": self.use_bias,
      "implementation": self.implementation,
      "strides": self.strides,
      "scale": self.scale,
      "activation": keras.activations.serialize(self.activation),
      "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
      "value_initializer": keras.initializers.serialize(self.value_initializer),
      "bias_initializer": keras.initializers.serialize(self.bias_initializer),
      "relative_initializer": keras.initializers.serialize(self.relative_initializer),
      "kernel_regularizer": keras.regularizers.serialize(self.kernel_regularizer),
      "bias_regularizer": keras.regularizers.serialize(self.bias_regularizer),
      "relative_regularizer": keras.regularizers.serialize(self.relative_regularizer),
    }
