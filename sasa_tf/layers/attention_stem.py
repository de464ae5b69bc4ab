"""Attention of the paper's stem, which replaces the first convolution (Sec. 3.2, App. A.1)."""

from __future__ import annotations

from typing import Any, get_args

import tensorflow as tf

from sasa_tf import ops
from sasa_tf.layers.checks import check_layout, equal_pair, head_width, require_channels
from sasa_tf.layers.keras_mixin import KerasMixin
from sasa_tf.layers.stem_pooling import pooling_signs
from sasa_tf.layers.types import StemVariant
from sasa_tf.ops.checks import (
  inferable_sizes,
  reshape_inferring,
  softmax_dtype,
  with_static_shape,
)
from sasa_tf.ops.export_context import exported_gpu_kernels, exports_stock_operations
from sasa_tf.ops.pointwise import pointwise_product
from sasa_tf.ops.stem.absorbed_attention import (
  block_attention_2d_absorbed,
  should_absorb_projections,
)
from sasa_tf.ops.stem.block_attention import relative_embeddings
from sasa_tf.ops.stem.export_attention import StemKernels, block_attention
from sasa_tf.ops.stem.value_mixture import spatial_value_kernels
from sasa_tf.ops.xla_barriers import target_device

VARIANTS: tuple[str, ...] = get_args(StemVariant)


class AttentionStemBase(KerasMixin):
  """Multi-head self-attention within blocks of pixels; a replacement for the stem's convolution.

  Each pixel attends to the pixels of its own block; blocks do not overlap. The values depend on the
  position in the block, like the taps of a convolution, because pointwise functions of RGB values
  cannot detect edges (paper Sec. 3.2). Batch norm and max pooling over each block complete the
  paper's stem, which has no activation.

  Examples:
    >>> x = AttentionStem(64)(images)
    >>> x = keras.layers.BatchNormalization()(x)
    >>> x = keras.layers.MaxPooling2D(4, padding="same")(x)  # [B, ceil(H / 4), ceil(W / 4), 64]

  Input: [B, H, W, C]. H and W may be unknown and need not be multiples of `block_size`: the image
  is padded on all sides like in a pooling with padding "same", so that such a pooling covers
  complete blocks. Padded pixels are ignored by the softmax.

  Output: [B, H, W, filters].

  Weights: `query_kernel`, `key_kernel` [C, filters], and depending on the variant:

  * "mixture" (logits q.k): `value_kernels` [M, C, filters], `embedding_rows`, `embedding_columns`
    [block_size, E], `mixture_vectors` [M, E];
  * "standalone" (logits q.k + q.r, Eq. 3): `value_kernel` [C, filters], `relative_rows`,
    `relative_columns` [2 * block_size - 1, D/2] with D = filters / num_heads;
  * "conv_values" (logits q.k): `value_kernel` [block_size, block_size, C, filters].
  """

  def __init__(
    self,
    filters: int = 64,
    block_size: int | tuple[int, int] = 4,
    num_heads: int = 4,
    num_mixtures: int = 8,
    variant: StemVariant = "mixture",
    *,
    embedding_dim: int | None = None,
    padding: str = "same",
    data_format: str | None = None,
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
      block_size: height and width of a block in pixels, an int or a pair of equal ones.
      num_heads: number of heads N. Each head has the width D = filters / num_heads.
      num_mixtures: number of value matrices M of the variant "mixture". The paper does not give
        it; its FLOPs fit 7 or 8.
      variant: how the values are computed (paper Table 7). "mixture": a mixture of M value
        matrices, with learned weights for each position in the block, shared by the heads;
        "standalone": one projection for all positions, and relative positions in the logits, as in
        the attention layers of the backbone; "conv_values": a convolution with a kernel of
        block_size x block_size, stride 1 and padding "same", which also reads pixels of other
        blocks.
      embedding_dim: width E of the embeddings that give the mixture weights; D by default.
      padding: "same", as in `Conv2D`.
      data_format: "channels_last", which does not depend on the setting of Keras.
      scale: factor of the query. The paper uses none.
      kernel_initializer: of the projections. The M value matrices are drawn separately, with the
        fans of one projection; a seeded initializer gives equal matrices. A mixture of 8 matrices
        has about half of the standard deviation of one matrix, which batch norm compensates.
      value_initializer: of the kernels of the values; `kernel_initializer` by default.
      embedding_initializer: of the embeddings and the mixture vectors; by default normal. The
        standard deviation is (2 E) ** -0.25 for "mixture", so that the logits of the mixture have
        unit variance initially and positions differ, and D ** -0.5 for "standalone", as in
        `LocalSelfAttention2D`.
      kernel_regularizer: of the projections.
      embedding_regularizer: of the embeddings and the mixture vectors.
      **kwargs: Keras arguments (`name`, `dtype`, `trainable`, ...).

    Raises:
      ValueError: an argument is out of range.
    """
    super().__init__(**kwargs)
    head_dim = head_width(filters, num_heads)
    block_size = equal_pair("block_size", block_size)
    check_layout(data_format, padding)
    embedding_dim = head_dim if embedding_dim is None else embedding_dim
    for argument, number in (
      ("num_mixtures", num_mixtures),
      ("embedding_dim", embedding_dim),
    ):
      if not isinstance(number, int) or number < 1:
        raise ValueError(f"{argument} must be a positive int; received {number!r}.")
    if variant not in VARIANTS:
      raise ValueError(f"variant must be one of {VARIANTS} (paper Table 7); received {variant!r}.")
    if variant == "standalone" and head_dim % 2:
      raise ValueError(
        "variant='standalone' needs an even head width, one half for the row and one for the "
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
    channels = require_channels(type(self).__name__, input_shape)
    block, projection = self.block_size, (channels, self.filters)
    values = self.value_initializer or self.kernel_initializer
    self.query_kernel = self._add_kernel("query_kernel", projection)
    self.key_kernel = self._add_kernel("key_kernel", projection)
    if self.variant == "mixture":
      self.value_kernels = self._add_kernel(
        "value_kernels", (self.num_mixtures, *projection), self._drawn_separately(values)
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
        self._add_embedding(
          name, (2 * block - 1, self.head_dim // 2), self.head_dim**-0.5, autocast=False
        )
        for name in ("relative_rows", "relative_columns")
      )
    else:
      self.value_kernel = self._add_kernel("value_kernel", (block, block, *projection), values)
    self.input_spec = self._keras.layers.InputSpec(ndim=4, axes={-1: channels})
    self.built = True

  def _drawn_separately(self, initializer: Any):
    """Returns an initializer that draws [M, C, filters] as M separate matrices.

    Keras would interpret M as a kernel size, which changes the fans and hence the variance.
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

  def _add_embedding(
    self, name: str, shape: tuple[int, int], deviation: float, autocast: bool = True
  ):
    initializer = self.embedding_initializer or self._keras.initializers.RandomNormal(
      stddev=deviation
    )
    return self._add_trained(name, shape, initializer, self.embedding_regularizer, autocast)

  def _query_and_key(self, inputs: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns query and key, each [B, H, W, N, D]."""
    kernels = [
      tf.cast(tf.convert_to_tensor(kernel), inputs.dtype)
      for kernel in (self.query_kernel, self.key_kernel)
    ]
    # One matrix product for both projections reads the input once.
    projected = pointwise_product(inputs, tf.concat(kernels, axis=-1))
    query, key = tf.split(projected, 2, axis=-1)
    return self._as_heads(query), self._as_heads(key)

  def _as_heads(self, images: tf.Tensor) -> tf.Tensor:
    """Splits the heads: [B, H, W, filters] -> [B, H, W, N, D]."""
    shape = [*inferable_sizes(images)[:3], self.num_heads, self.head_dim]
    heads = reshape_inferring(images, shape)
    return with_static_shape(heads, [*images.shape[:3], self.num_heads, self.head_dim])

  def _mixture(self) -> tuple[tf.Tensor, ...]:
    return tuple(
      map(
        tf.convert_to_tensor,
        (self.value_kernels, self.embedding_rows, self.embedding_columns, self.mixture_vectors),
      )
    )

  def _values(self, inputs: tf.Tensor) -> tf.Tensor:
    """Computes the values: [B, H, W, C] -> [B, H, W, filters]."""
    if self.variant == "mixture":
      return ops.spatial_value_mixture(inputs, *self._mixture())
    kernel = tf.cast(tf.convert_to_tensor(self.value_kernel), inputs.dtype)
    if self.variant == "standalone":
      return pointwise_product(inputs, kernel)
    return tf.nn.conv2d(inputs, kernel, strides=1, padding="SAME")

  def _block_arguments(self) -> dict[str, Any]:
    tables = {}
    if self.variant == "standalone":
      tables = {
        "relative_rows": tf.convert_to_tensor(self.relative_rows),
        "relative_columns": tf.convert_to_tensor(self.relative_columns),
      }
    return {**tables, "block_size": self.block_size, "scale": self.scale}

  def _attend_absorbed(self, inputs: tf.Tensor) -> tf.Tensor:
    """Attends with absorbed projections: [B, H, W, C] -> [B, H, W, filters].

    Queries, keys and values are never materialized.
    """
    if self.variant == "mixture":
      values = spatial_value_kernels(*self._mixture())
    else:
      positions = self.block_size**2
      values = tf.tile(tf.convert_to_tensor(self.value_kernel)[None], [positions, 1, 1])
    heads = [self.num_heads, self.head_dim]
    query, key, values = (
      tf.reshape(kernel, [*kernel.shape[:-1], *heads])
      for kernel in map(tf.convert_to_tensor, (self.query_kernel, self.key_kernel, values))
    )
    return block_attention_2d_absorbed(inputs, query, key, values, **self._block_arguments())

  def _checked(self, inputs: tf.Tensor) -> tf.Tensor:
    return self._check_inputs(inputs, [None, None, None, self.query_kernel.shape[0]])

  def call(self, inputs: tf.Tensor) -> tf.Tensor:
    """Applies the layer: [B, H, W, C] -> [B, H, W, filters]."""
    inputs = self._checked(inputs)
    # The values of a convolution depend on pixels of other blocks.
    if self.variant != "conv_values" and should_absorb_projections(
      inputs,
      self.head_dim,
      block_size=self.block_size,
      positions=self.variant == "standalone",
    ):
      return self._attend_absorbed(inputs)
    attend = self._attend_exported if self._exports_absorbed() else self._attend
    return with_static_shape(attend(inputs), self._output_shape(inputs))

  def _output_shape(self, inputs: tf.Tensor) -> list[int | None]:
    size: Any = inputs.shape[:3].as_list()
    if pooling_signs() is not None:
      size[1:] = (length // self.block_size for length in size[1:])
    return [*size, self.filters]

  def _attend(self, inputs: tf.Tensor) -> tf.Tensor:
    """Projects and attends: [B, H, W, C] -> [B, H, W, filters]."""
    query, key = self._query_and_key(inputs)
    value = self._as_heads(self._values(inputs))
    attended = ops.block_attention_2d(query, key, value, **self._block_arguments())
    return reshape_inferring(attended, [*inferable_sizes(inputs)[:3], self.filters])

  def _exports_absorbed(self) -> bool:
    """Returns whether stock operations with absorbed projections are being exported."""
    stock = exports_stock_operations() and exported_gpu_kernels() is None
    few_channels = self.query_kernel.shape[0] < self.head_dim
    return stock and target_device() == "CPU" and few_channels and self.variant != "conv_values"

  def pools_blocks(self, inputs: Any) -> bool:
    """Returns whether the layer can pool the blocks of these inputs, see `pooling_within_stem`."""
    size = inputs.shape[1:3]
    whole = all(length is not None and length % self.block_size == 0 for length in size)
    return whole and self._exports_absorbed()

  def _attend_exported(self, inputs: tf.Tensor) -> tf.Tensor:
    """`_attend`, or with pooled blocks, as exported models compute it."""
    dtype = softmax_dtype(inputs.dtype)
    heads, positions = (self.num_heads, self.head_dim), self.block_size**2
    block = (self.block_size, self.block_size)

    def kernel(weight: Any) -> tf.Tensor:
      weight = tf.cast(tf.convert_to_tensor(weight), dtype)
      return tf.reshape(weight, [*weight.shape[:-1], *heads])

    query, key = kernel(self.query_kernel) * self.scale, kernel(self.key_kernel)
    similarity = tf.einsum("cnd,end->nce", query, key)
    if self.variant == "mixture":
      mixture = tf.reshape(self.mixture_weights(), [positions, self.num_mixtures])
      kernels = StemKernels(similarity, tf.cast(mixture, dtype), kernel(self.value_kernels))
    else:
      rows, columns = (
        tf.cast(tf.convert_to_tensor(x), dtype) for x in (self.relative_rows, self.relative_columns)
      )
      embeddings = relative_embeddings(rows, columns, block)
      kernels = StemKernels(
        similarity,
        tf.ones([positions, 1], dtype),
        kernel(self.value_kernel)[None],
        tf.einsum("cnd,pqd->pnqc", query, embeddings),
      )
    signs = pooling_signs()
    signs = None if signs is None else tf.cast(signs, dtype)
    return block_attention(inputs, kernels, block, signs)

  def attention_weights(self, inputs: Any) -> tf.Tensor:
    """Returns the softmax weights of each block, for visualization. The layer must be built.

    Args:
      inputs: [B, H, W, C].

    Returns:
      [B, H, W, N, block_size, block_size]; see `sasa_tf.ops.block_attention_weights`.
    """
    query, key = self._query_and_key(self._checked(tf.convert_to_tensor(inputs)))
    return ops.block_attention_weights(query, key, **self._block_arguments())

  def mixture_weights(self) -> tf.Tensor:
    """Returns the weights of the M value matrices for each position in a block.

    Returns:
      [block_size, block_size, M]; see `sasa_tf.ops.spatial_mixture_weights`.

    Raises:
      ValueError: the variant is not "mixture".
    """
    if self.variant != "mixture":
      raise ValueError(
        f"{self.name} has no mixture weights; expected variant='mixture', received "
        f"variant={self.variant!r}. attention_weights(inputs) works for all variants."
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
    """Returns the arguments of the constructor, serialized."""
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
