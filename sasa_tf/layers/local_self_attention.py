"""Local self-attention as a replacement for spatial convolution (paper Sec. 3.1)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, get_args

import tensorflow as tf

from sasa_tf import ops
from sasa_tf.layers.checks import check_layout, equal_pair, head_width, require_channels
from sasa_tf.layers.keras_mixin import KerasMixin
from sasa_tf.layers.locality import (
  locality_embeddings,
  locality_key_kernel,
  locality_query_bias,
)
from sasa_tf.layers.types import Border, ImplementationName, Positions
from sasa_tf.ops.checks import (
  inferable_sizes,
  reshape_inferring,
  sizes,
  window_geometry,
  with_static_shape,
)
from sasa_tf.ops.dispatch import check_implementation
from sasa_tf.ops.local_self_attention import project_qkv
from sasa_tf.ops.qkv_packing import split_qkv
from sasa_tf.ops.xla_barriers import fusion_barrier

POSITIONS: tuple[str, ...] = get_args(Positions)


class LocalSelfAttention2DBase(KerasMixin):
  """Multi-head self-attention over a window around each pixel; a replacement for `Conv2D`.

  Queries, keys and values are pointwise projections of the input. Each pixel attends to the
  `kernel_size` window centered on it, separately in each of `num_heads` heads (paper Sec. 3.1,
  Eq. 3). There is no output projection. The output has the size of `Conv2D(padding="same")`.

  Example:
    `keras.layers.Conv2D(64, 3, strides=2, padding="same")` becomes
    `LocalSelfAttention2D(64, 7, strides=2)`.

  Input: [B, H, W, C]. H and W may be unknown. The kernel may be larger than the feature map.

  Output: [B, ceil(H / strides), ceil(W / strides), filters].

  Weights: `query_kernel`, `key_kernel`, `value_kernel` [C, filters]; with `use_bias`, `query_bias`,
  `key_bias`, `value_bias` [filters]; with positions="relative", `relative_rows` [K of the rows,
  D/2] and `relative_columns` [K of the columns, D/2] with D = filters / num_heads, shared by the
  heads; with `locality_strength`, `query_bias` [filters] also without `use_bias`. Their shapes do
  not depend on H, W or the implementation.
  """

  def __init__(
    self,
    filters: int,
    kernel_size: int | tuple[int, int] = 7,
    num_heads: int = 8,
    positions: Positions = "relative",
    content: bool = True,
    border: Border = "zero",
    dilation_rate: int | tuple[int, int] = 1,
    use_bias: bool = False,
    implementation: ImplementationName = "auto",
    *,
    strides: int | tuple[int, int] = 1,
    padding: str = "same",
    data_format: str | None = None,
    scale: float = 1.0,
    locality_strength: float = 0.0,
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
      kernel_size: odd int or (rows, columns) of odd ints, in pixels.
      num_heads: number of heads N. Each head has the width D = filters / num_heads.
      positions: "relative" adds q.r with learned row and column embeddings (the paper's choice;
        D must be even); "absolute" adds fixed sinusoids to the input of the layer; "none" uses no
        position information.
      content: False omits q.k and the key projection, so that attention depends on the relative
        position only (paper Table 6).
      border: treatment of a neighbor outside the image. "zero": its key and value are zero, and it
        still contributes q.r to the softmax; "mask": the softmax ignores it.
      dilation_rate: int or (rows, columns), in pixels.
      use_bias: whether the three projections have a bias.
      implementation: "auto" or one of `sasa_tf.ops.available_implementations()`.
      strides: size and stride of the average pooling of the output (paper Sec. 3.1), an int or a
        pair of equal ones. Windows at the right and lower border average the pixels inside the
        image.
      padding: "same", as in `Conv2D`.
      data_format: "channels_last", which does not depend on the setting of Keras.
      scale: factor of the query. The paper uses none.
      locality_strength: 0 initializes the layer as in the paper. With a positive value each head
        starts at one offset of the window, the nearest to the center first, like a tap of a
        convolution: its initial logits also contain -locality_strength * distance^2, the distance
        from this offset in pixels of the window (d'Ascoli et al. 2021; 1 is their value). Needs
        positions="relative" and D >= 4.
      activation: activation of the output, as in `Conv2D`.
      kernel_initializer: of the three projections.
      value_initializer: of the value projection; `kernel_initializer` by default.
      bias_initializer: of the biases.
      relative_initializer: of both embeddings; by default normal with standard deviation
        D ** -0.5, so that q.r initially has the variance of one channel of q.
      kernel_regularizer: of the three projections.
      bias_regularizer: of the biases.
      relative_regularizer: of both embeddings.
      **kwargs: Keras arguments (`name`, `dtype`, `trainable`, ...).

    Raises:
      ValueError: an argument is out of range.
    """
    super().__init__(**kwargs)
    head_dim = head_width(filters, num_heads)
    if positions not in POSITIONS:
      raise ValueError(f"positions must be one of {POSITIONS}; received {positions!r}.")
    if positions == "relative" and head_dim % 2:
      raise ValueError(
        "positions='relative' needs an even head width, one half for the row and one for the "
        f"column (paper Sec. 3.1); received filters={filters} / num_heads={num_heads} = "
        f"{head_dim}. Choose filters as a multiple of {2 * num_heads}, or change positions."
      )
    if not content and positions != "relative":
      raise ValueError(
        "content=False uses only q.r (paper Table 6), so it needs positions='relative'; "
        f"received positions={positions!r}."
      )
    if not 0 <= locality_strength < float("inf"):
      raise ValueError(
        f"locality_strength must be 0 or a positive number; received {locality_strength!r}."
      )
    if locality_strength and (positions != "relative" or head_dim < 4):
      raise ValueError(
        "locality_strength needs positions='relative' and heads of at least 4 channels, two for "
        f"the row and two for the column; received positions={positions!r} and filters={filters} / "
        f"num_heads={num_heads} = {head_dim}. Use fewer heads, or locality_strength=0."
      )
    strides = equal_pair("strides", strides)
    check_layout(data_format, padding)
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
    self.implementation: ImplementationName = implementation
    self.strides = strides
    self.scale = scale
    self.locality_strength = locality_strength
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
    channels = require_channels(type(self).__name__, input_shape)
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
    initializer = initializer or self.kernel_initializer
    if part == "key" and self.locality_strength:
      initializer = self._then(initializer, locality_key_kernel, self.num_heads)
    kernel = self._add_trained(
      f"{part}_kernel", (channels, self.filters), initializer, self.kernel_regularizer
    )
    local = part == "query" and self.locality_strength > 0
    if not self.use_bias and not local:
      return kernel, None
    initializer = self._locality_bias if local else self.bias_initializer
    bias = self._add_trained(f"{part}_bias", (self.filters,), initializer, self.bias_regularizer)
    return kernel, bias

  def _locality_bias(self, shape: Any, dtype: Any = None) -> tf.Tensor:
    """Initializes the query bias [filters] of a layer with `locality_strength`."""
    # Divided, because `scale` multiplies the query with its bias.
    strength = self.locality_strength / self.scale
    bias = locality_query_bias(self.num_heads, self.head_dim, self.kernel_size, strength)
    return tf.cast(tf.reshape(bias, shape), dtype or tf.float32)

  def _add_relative(self, name: str, size: int):
    if self.positions != "relative":
      return None
    initializer = self.relative_initializer or self._keras.initializers.RandomNormal(
      stddev=self.head_dim**-0.5
    )
    if self.locality_strength:
      initializer = self._then(initializer, locality_embeddings)
    shape = (size, self.head_dim // 2)
    return self._add_trained(name, shape, initializer, self.relative_regularizer, autocast=False)

  def _then(self, initializer: Any, change: Callable[..., tf.Tensor], *arguments: Any) -> Any:
    """Returns an initializer that changes the values of another one."""
    fresh = self._fresh_initializer(initializer)

    def changed(shape: Any, dtype: Any = None) -> tf.Tensor:
      return change(tf.convert_to_tensor(fresh(shape, dtype=dtype)), *arguments)

    return changed

  def _with_positions(self, inputs: tf.Tensor) -> tf.Tensor:
    """Returns the input of the projections, [B, H, W, C]."""
    inputs = self._check_inputs(inputs, [None, None, None, self.query_kernel.shape[0]])
    if self.positions != "absolute":
      return inputs
    height, width = sizes(inputs)[1:3]
    positions = ops.sinusoidal_positions(height, width, self.query_kernel.shape[0])
    return inputs + tf.cast(positions, inputs.dtype)

  def _projections(self) -> dict[str, Any]:
    return {
      "kernels": (self.query_kernel, self.key_kernel, self.value_kernel),
      "biases": (self.query_bias, self.key_bias, self.value_bias),
      "num_heads": self.num_heads,
    }

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
    """Applies the layer: [B, H, W, C] -> [B, ceil(H / strides), ceil(W / strides), filters]."""
    attended = ops.local_self_attention_2d(
      fusion_barrier(self._with_positions(inputs)),
      implementation=self.implementation,
      pool_size=self.strides,
      **self._projections(),
      **self._window_arguments(),
    )
    outputs = reshape_inferring(attended, [*inferable_sizes(attended)[:3], self.filters])
    return self.activation(with_static_shape(outputs, [*attended.shape[:3], self.filters]))

  def attention_weights(self, inputs: Any, pixels: Any = None) -> tf.Tensor:
    """Returns the softmax weights of each window, for visualization. The layer must be built.

    Args:
      inputs: [B, H, W, C].
      pixels: int [P, 2], the (row, column) of the selected queries; None for all.

    Returns:
      [B, H, W, N, K, K], or [B, P, N, K, K] for P pixels; see
      `sasa_tf.ops.local_attention_weights`.
    """
    source = self._with_positions(tf.convert_to_tensor(inputs))
    query, key, _ = split_qkv(project_qkv(source, **self._projections()))
    return ops.local_attention_weights(query, key, pixels=pixels, **self._window_arguments())

  def compute_output_shape(self, input_shape) -> tuple[int | None, ...]:
    """Returns (B, ceil(H / strides), ceil(W / strides), filters)."""
    batch, *size, _ = tuple(input_shape)
    pooled = [None if s is None else -(-s // self.strides) for s in size]
    return (batch, *pooled, self.filters)

  def get_config(self) -> dict[str, Any]:
    """Returns the arguments of the constructor, serialized."""
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
      "locality_strength": self.locality_strength,
      "activation": keras.activations.serialize(self.activation),
      "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
      "value_initializer": keras.initializers.serialize(self.value_initializer),
      "bias_initializer": keras.initializers.serialize(self.bias_initializer),
      "relative_initializer": keras.initializers.serialize(self.relative_initializer),
      "kernel_regularizer": keras.regularizers.serialize(self.kernel_regularizer),
      "bias_regularizer": keras.regularizers.serialize(self.bias_regularizer),
      "relative_regularizer": keras.regularizers.serialize(self.relative_regularizer),
    }
