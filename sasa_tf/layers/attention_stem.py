"""The attention of the paper's stem, in the place of its first convolution (Sec. 3.2, App. A.1)."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from sasa_tf import ops
from sasa_tf.layers.heads import head_width
from sasa_tf.layers.inputs import checked_inputs, known_channels
from sasa_tf.layers.keras_mixin import KerasBound
from sasa_tf.ops.stem.absorbed_attention import (
  block_attention_2d_absorbed,
  should_absorb_projections,
)
from sasa_tf.ops.stem.value_mixture import spatial_value_kernels

VARIANTS = ("mixture", "standalone", "conv_values")


class AttentionStemBase(KerasBound):
  """Multi-head self-attention inside each block of the image; exchanges for a stem's convolution.

  Pixels attend to those of their own block alone, blocks do not overlap. What is seen first of an
  image are its colours, of which pointwise values can make no edges; so values depend on the place
  in the block, as the taps of a convolution do (paper Sec. 3.2). Batch norm and a max pool over
  each block complete the stem of the paper; it names no non-linearity between them.

  Example:
    >>> x = AttentionStem(64)(images)
    >>> x = keras.layers.BatchNormalization()(x)
    >>> x = keras.layers.MaxPooling2D(4, padding="same")(x)  # [B, ceil(H / 4), ceil(W / 4), 64]

  Input: [B, H, W, C], H and W known or not. They need not be multiples of `block_size`: the image
  then counts as padded by zeros on all sides as a pooling with padding "same" pads it, so that such
  a pooling still takes each block as a whole. Padded pixels take no part in the attention.
  Output: [B, H, W, filters].

  Weights: `query_kernel`, `key_kernel` [C, filters], and for the variant
    "mixture" (q.k): `value_kernels` [M, C, filters], `embedding_rows`, `embedding_columns`
      [block_size, E], `mixture_vectors` [M, E];
    "standalone" (Eq. 3, so q.k + q.r): `value_kernel` [C, filters], `relative_rows`,
      `relative_columns` [2 * block_size - 1, D/2] with D = filters / num_heads;
    "conv_values" (q.k): `value_kernel` [block_size, block_size, C, filters].
  """

  def __init__(
    self,
    filters: int = 64,
    block_size: int = 4,
    num_heads: int = 4,
    num_mixtures: int = 8,
    variant: str = "mixture",
    *,
    embedding_dim: int | None = None,
    scale: float = 1.0,
    kernel_initializer: Any = "glorot_uniform",
    value_initializer: Any = None,
    embedding_initializer: Any = None,
    kernel_regularizer: Any = None,
    embedding_regularizer: Any = None,
    **kwargs: Any,
  ):
    """Creates the layer.

    Args:
      filters: output channels; a multiple of `num_heads`.
      block_size: height and width of a block, in pixels.
      num_heads: N. Each head is D = filters / num_heads wide.
      num_mixtures: M, the value matrices of the variant "mixture". The paper does not say how many;
        its FLOPs fit 7 or 8.
      variant: what the values are (paper Table 7). "mixture": each place in a block mixes the M
        value matrices by weights of its own, learned and shared by the heads; "standalone": one
        projection for all places, and relative positions in the logits, the stem as a layer of the
        network's body; "conv_values": a convolution as large as a block, of stride 1, with padding
        "same" and so not confined to blocks.
      embedding_dim: E, the width of the embeddings that decide the mixture; None is D.
      scale: multiplies the query. The paper has none.
      kernel_initializer: of the projections. Each value matrix is drawn by itself, with the fans of
        one projection; those of one seeded initializer are equal. A mixture of 8
        has about half of the standard deviation of one matrix, for which batch norm makes up.
      value_initializer: of the values' kernels; `kernel_initializer` by default.
      embedding_initializer: of all embeddings and the mixture vectors; by default normal. The
        standard deviation is (2 E) ** -0.25 in the variant "mixture", so that the logits of the
        mixture start with variance one and places start out different, and D ** -0.5 in
        "standalone", as in `LocalSelfAttention2D`.
      kernel_regularizer: of the projections.
      embedding_regularizer: of all embeddings and the mixture vectors.
      **kwargs: Keras's own (`name`, `dtype`, `trainable`, ...).

    Raises:
      ValueError: an argument out of range; the message says which, and how to mend it.
    """
    super().__init__(**kwargs)
    head_dim = head_width(filters, num_heads)
    embedding_dim = head_dim if embedding_dim is None else embedding_dim
    for argument, number in (
      ("block_size", block_size),
      ("num_mixtures", num_mixtures),
      ("embedding_dim", embedding_dim),
    ):
      if not isinstance(number, int) or number < 1:
        raise ValueError(f"{argument} must be a positive int; received {number!r}.")
    if variant not in VARIANTS:
      raise ValueError(f"variant must be one of {VARIANTS} (paper Table 7); received {variant!r}.")
    if variant == "standalone" and head_dim % 2:
      raise ValueError(
        "variant='standalone' needs an even head width, half of it for the row and half for the "
        f"column (paper Sec. 3.1); received filters={filters} / num_heads={num_heads} = "
        f"{head_dim}. Choose filters as a multiple of {2 * num_heads}, or another variant."
      )
    keras = self._keras
    self.filters = filters
    self.block_size = block_size
    self.num_heads = num_heads
    self.head_dim = head_dim
    self.num_mixtures = num_mixtures
    self.variant = variant
    self.embedding_dim = embedding_dim
    self.scale = scale
    self.kernel_initializer = keras.initializers.get(kernel_initializer)
    self.value_initializer = keras.initializers.get(value_initializer)
    self.embedding_initializer = keras.initializers.get(embedding_initializer)
    self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)
    self.embedding_regularizer = keras.regularizers.get(embedding_regularizer)
    self.input_spec = keras.layers.InputSpec(ndim=4)

  def build(self, input_shape):
    """Creates the weights for inputs of `input_shape` [B, H, W, C]."""
    channels = known_channels(type(self).__name__, input_shape)
    block, projection = self.block_size, (channels, self.filters)
    values = self.value_initializer or self.kernel_initializer
    self.query_kernel = self._add_kernel("query_kernel", projection)
    self.key_kernel = self._add_kernel("key_kernel", projection)
    if self.variant == "mixture":
      self.value_kernels = self._add_kernel(
        "value_kernels", (self.num_mixtures, *projection), self._one_by_one(values)
      )
      width, deviation = self.embedding_dim, (2 * self.embedding_dim) ** -0.25
      self.embedding_rows, self.embedding_columns = (
        self._add_embedding(name, (block, width), deviation)
        for name in ("embedding_rows", "embedding_columns")
      )
      self.mixture_vectors = self._add_embedding(
        "mixture_vectors", (self.num_mixtures, width), deviation
      )
    elif self.variant == "standalone":
      self.value_kernel = self._add_kernel("value_kernel", projection, values)
      self.relative_rows, self.relative_columns = (
        self._add_embedding(name, (2 * block - 1, self.head_dim // 2), self.head_dim**-0.5)
        for name in ("relative_rows", "relative_columns")
      )
    else:
      self.value_kernel = self._add_kernel("value_kernel", (block, block, *projection), values)
    self.input_spec = self._keras.layers.InputSpec(ndim=4, axes={-1: channels})
    self.built = True

  def _one_by_one(self, initializer: Any):
    """Returns an initializer that draws [M, C, filters] as M matrices.

    Keras would take M for the size of a convolution's kernel and shrink the matrices accordingly.
    """

    def draw(shape, dtype=None):
      return tf.stack(
        [self._fresh_initializer(initializer)(shape[1:], dtype=dtype) for _ in range(shape[0])]
      )

    return draw

  def _add_kernel(self, name: str, shape: tuple[int, ...], initializer: Any = None):
    return self._add_trained(
      name, shape, initializer or self.kernel_initializer, self.kernel_regularizer
    )

  def _add_embedding(self, name: str, shape: tuple[int, int], deviation: float):
    initializer = self.embedding_initializer or self._keras.initializers.RandomNormal(
      stddev=deviation
    )
    return self._add_trained(name, shape, initializer, self.embedding_regularizer)

  def _query_and_key(self, inputs: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns both, [B, H, W, N, D] each."""
    kernels = [
      tf.cast(tf.convert_to_tensor(kernel), inputs.dtype)
      for kernel in (self.query_kernel, self.key_kernel)
    ]
    # One matrix product for both projections reads the input once.
    projected = tf.tensordot(inputs, tf.concat(kernels, axis=-1), axes=1)
    return tuple(self._as_heads(part) for part in tf.split(projected, 2, axis=-1))

  def _as_heads(self, images: tf.Tensor) -> tf.Tensor:
    """[B, H, W, filters] -> [B, H, W, N, D]."""
    # No -1 among the sizes, which an empty batch would leave undecided.
    heads = tf.reshape(
      images, tf.concat([tf.shape(images)[:3], [self.num_heads, self.head_dim]], axis=0)
    )
    return tf.ensure_shape(heads, [*images.shape[:3], self.num_heads, self.head_dim])

  def _mixture(self) -> tuple[tf.Tensor, ...]:
    return tuple(
      map(
        tf.convert_to_tensor,
        (self.value_kernels, self.embedding_rows, self.embedding_columns, self.mixture_vectors),
      )
    )

  def _values(self, inputs: tf.Tensor) -> tf.Tensor:
    """[B, H, W, C] -> [B, H, W, filters]."""
    if self.variant == "mixture":
      return ops.spatial_value_mixture(inputs, *self._mixture())
    kernel = tf.cast(tf.convert_to_tensor(self.value_kernel), inputs.dtype)
    if self.variant == "standalone":
      return tf.tensordot(inputs, kernel, axes=1)
    return tf.nn.conv2d(inputs, kernel, strides=1, padding="SAME")

  def _block_arguments(self) -> dict[str, Any]:
    tables = {}
    if self.variant == "standalone":
      tables = {
        "relative_rows": tf.convert_to_tensor(self.relative_rows),
        "relative_columns": tf.convert_to_tensor(self.relative_columns),
      }
    return {**tables, "block_size": self.block_size, "scale": self.scale}

  def _attend_to_pixels(self, inputs: tf.Tensor) -> tf.Tensor:
    """[B, H, W, C] -> [B, H, W, filters], without queries, keys and values."""
    if self.variant == "mixture":
      values = spatial_value_kernels(*self._mixture())
    else:
      places = self.block_size**2
      values = tf.tile(tf.convert_to_tensor(self.value_kernel)[None], [places, 1, 1])
    heads = [self.num_heads, self.head_dim]
    query, key, values = (
      tf.reshape(kernel, [*kernel.shape[:-1], *heads])
      for kernel in map(tf.convert_to_tensor, (self.query_kernel, self.key_kernel, values))
    )
    return block_attention_2d_absorbed(inputs, query, key, values, **self._block_arguments())

  def _checked(self, inputs: tf.Tensor) -> tf.Tensor:
    return checked_inputs(self.name, inputs, [None, None, None, self.query_kernel.shape[0]])

  def call(self, inputs: tf.Tensor) -> tf.Tensor:
    """Attends: [B, H, W, C] -> [B, H, W, filters]."""
    inputs = self._checked(inputs)
    # The values of a convolution are of other blocks' pixels too.
    if self.variant != "conv_values" and should_absorb_projections(
      inputs,
      self.head_dim,
      block_size=self.block_size,
      positions=self.variant == "standalone",
    ):
      return self._attend_to_pixels(inputs)
    query, key = self._query_and_key(inputs)
    value = self._as_heads(self._values(inputs))
    attended = ops.block_attention_2d(query, key, value, **self._block_arguments())
    outputs = tf.reshape(attended, tf.concat([tf.shape(inputs)[:3], [self.filters]], axis=0))
    return tf.ensure_shape(outputs, [*inputs.shape[:3], self.filters])

  def attention_weights(self, inputs: tf.Tensor) -> tf.Tensor:
    """Returns the weights that the built layer gives to each place of a pixel's block, to look at.

    Args:
      inputs: [B, H, W, C].

    Returns:
      As `sasa_tf.ops.block_attention_weights`: [B, H, W, N, block_size, block_size].
    """
    query, key = self._query_and_key(self._checked(tf.convert_to_tensor(inputs)))
    return ops.block_attention_weights(query, key, **self._block_arguments())

  def mixture_weights(self) -> tf.Tensor:
    """Returns the weights of the M value matrices at each place of a block, to look at.

    Returns:
      As `sasa_tf.ops.spatial_mixture_weights`: [block_size, block_size, M].

    Raises:
      ValueError: the layer is of another variant than "mixture".
    """
    if self.variant != "mixture":
      raise ValueError(
        f"{self.name} has no mixture to look at; expected variant='mixture', received "
        f"variant={self.variant!r}. attention_weights(inputs) serves all variants."
      )
    return ops.spatial_mixture_weights(
      *map(
        tf.convert_to_tensor, (self.embedding_rows, self.embedding_columns, self.mixture_vectors)
      )
    )

  def compute_output_shape(self, input_shape) -> tuple[int | None, ...]:
    """Returns (B, H, W, filters)."""
    return (*tuple(input_shape)[:3], self.filters)

  def get_config(self) -> dict[str, Any]:
    """Returns the constructor's arguments, serialised."""
    keras = self._keras
    return super().get_config() | {
      "filters": self.filters,
      "block_size": self.block_size,
      "num_heads": self.num_heads,
      "num_mixtures": self.num_mixtures,
      "variant": self.variant,
      "embedding_dim": self.embedding_dim,
      "scale": self.scale,
      "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
      "value_initializer": keras.initializers.serialize(self.value_initializer),
      "embedding_initializer": keras.initializers.serialize(self.embedding_initializer),
      "kernel_regularizer": keras.regularizers.serialize(self.kernel_regularizer),
      "embedding_regularizer": keras.regularizers.serialize(self.embedding_regularizer),
    }
