"""Values of the attention stem: a mixture of projections for each position in a block."""

from __future__ import annotations

import tensorflow as tf

from sasa_tf.ops.autograph import without_autograph
from sasa_tf.ops.checks import require_floating, softmax_dtype, static_size, with_static_shape
from sasa_tf.ops.stem.block_partition import BlockPartition

# Shapes in letters; dimensions with the same letter have the same size.
_INPUTS = ("B", "H", "W", "C")
_VALUE_KERNELS = ("M", "C", "filters")
_EMBEDDING_ROWS = ("block rows", "E")
_EMBEDDING_COLUMNS = ("block columns", "E")
_MIXTURE_VECTORS = ("M", "E")


def _check_shapes(**tensors: tuple[tf.Tensor, tuple[str, ...]]) -> None:
  """Checks the tensors against their shapes in letters.

  Raises:
    ValueError: a shape does not match.
  """
  sizes: dict[str, tuple[int, str]] = {}  # letter -> size, and the argument that it is taken from
  for name, (tensor, letters) in tensors.items():
    expected = f"{name} must have shape [{', '.join(letters)}]"
    if tensor.shape.rank != len(letters):
      raise ValueError(f"{expected}; received {tensor.shape}.")
    for letter, size in zip(letters, tensor.shape, strict=True):
      if letter in ("B", "H", "W"):
        continue
      if size is None:
        raise ValueError(
          f"{expected} with {letter} known when the graph is built; received {tensor.shape}. Set "
          "it with tf.ensure_shape."
        )
      known, source = sizes.setdefault(letter, (size, name))
      if size != known:
        raise ValueError(
          f"{expected} with {letter} = {known}, as {source} {tensors[source][0].shape} has it; "
          f"received {tensor.shape}. Give both one {letter}."
        )


@without_autograph
def spatial_mixture_weights(
  embedding_rows: tf.Tensor, embedding_columns: tf.Tensor, mixture_vectors: tf.Tensor
) -> tf.Tensor:
  """p(a, b, m) = softmax_m((emb_row(a) + emb_col(b)) . nu^m) of each position in a block.

  Args:
    embedding_rows: emb_row, [block rows, E].
    embedding_columns: emb_col, [block columns, E].
    mixture_vectors: nu, [M, E].

  Returns:
    [block rows, block columns, M]; float32, or float64 for float64 embeddings.

  Raises:
    ValueError: shapes do not match.
  """
  rows, columns, vectors = (
    tf.cast(table, softmax_dtype(table.dtype))
    for table in map(tf.convert_to_tensor, (embedding_rows, embedding_columns, mixture_vectors))
  )
  _check_shapes(
    embedding_rows=(rows, _EMBEDDING_ROWS),
    embedding_columns=(columns, _EMBEDDING_COLUMNS),
    mixture_vectors=(vectors, _MIXTURE_VECTORS),
  )
  positions = rows[:, None] + columns[None]
  return tf.nn.softmax(tf.tensordot(positions, vectors, axes=[[2], [1]]))


def spatial_value_kernels(
  value_kernels: tf.Tensor,
  embedding_rows: tf.Tensor,
  embedding_columns: tf.Tensor,
  mixture_vectors: tf.Tensor,
) -> tf.Tensor:
  """sum_m p(a, b, m) W_V^m, the value projection of each position in a block.

  Args:
    value_kernels: W_V, [M, C, filters].
    embedding_rows: emb_row, [block rows, E].
    embedding_columns: emb_col, [block columns, E].
    mixture_vectors: nu, [M, E].

  Returns:
    [P, C, filters] of the P positions in row-major order; float32, or float64 for float64 kernels.

  Raises:
    ValueError: shapes do not match.
  """
  kernels, rows, columns, vectors = map(
    tf.convert_to_tensor, (value_kernels, embedding_rows, embedding_columns, mixture_vectors)
  )
  kernels = tf.cast(kernels, softmax_dtype(kernels.dtype))
  _check_shapes(
    value_kernels=(kernels, _VALUE_KERNELS),
    embedding_rows=(rows, _EMBEDDING_ROWS),
    embedding_columns=(columns, _EMBEDDING_COLUMNS),
    mixture_vectors=(vectors, _MIXTURE_VECTORS),
  )
  weights = tf.cast(spatial_mixture_weights(rows, columns, vectors), kernels.dtype)
  return tf.tensordot(tf.reshape(weights, [-1, weights.shape[-1]]), kernels, axes=1)


@without_autograph
def spatial_value_mixture(
  inputs: tf.Tensor,
  value_kernels: tf.Tensor,
  embedding_rows: tf.Tensor,
  embedding_columns: tf.Tensor,
  mixture_vectors: tf.Tensor,
) -> tf.Tensor:
  """Projects each pixel by the value matrix of its position in the block (Sec. 3.2, App. A.1).

  `v_ab = (sum_m p(a, b, m) W_V^m) x_ab` with `p` of `spatial_mixture_weights`. Because p depends on
  the position alone, the M matrices are first mixed into one for each position, so that each pixel
  is projected once instead of M times.

  B, H and W may be unknown when the graph is built and need not be multiples of the block: blocks
  are aligned with the windows of a pooling of their size and stride with padding "SAME". The pixel
  (y, x) has the position ((y + above) mod rows, (x + left) mod columns), where `above` is half of
  the rows by which H is padded to a multiple, rounded down, and `left` likewise.

  Args:
    inputs: x, [B, H, W, C].
    value_kernels: W_V, [M, C, filters].
    embedding_rows: emb_row, [block rows, E]; its length is the height of a block.
    embedding_columns: emb_col, [block columns, E]; its length is the width of a block.
    mixture_vectors: nu, [M, E].

  Returns:
    [B, H, W, filters] in inputs' dtype. The softmax and the mixing of the matrices are computed in
    float32 (float64 for float64 inputs).

  Raises:
    ValueError: shapes or dtypes do not match.
  """
  inputs = tf.convert_to_tensor(inputs)
  require_floating("inputs", inputs)
  dtype = softmax_dtype(inputs.dtype)
  kernels, rows, columns, vectors = (
    tf.cast(tf.convert_to_tensor(table), dtype)
    for table in (value_kernels, embedding_rows, embedding_columns, mixture_vectors)
  )
  _check_shapes(
    inputs=(inputs, _INPUTS),
    value_kernels=(kernels, _VALUE_KERNELS),
    embedding_rows=(rows, _EMBEDDING_ROWS),
    embedding_columns=(columns, _EMBEDDING_COLUMNS),
    mixture_vectors=(vectors, _MIXTURE_VECTORS),
  )
  with tf.name_scope("spatial_value_mixture"):
    block = (static_size(rows, 0), static_size(columns, 0))
    mixed = spatial_value_kernels(kernels, rows, columns, vectors)
    partition = BlockPartition.of(inputs, block)
    values = tf.einsum("gpc,pcf->gpf", partition.split(inputs), tf.cast(mixed, inputs.dtype))
    return with_static_shape(partition.join(values), [*inputs.shape[:3], kernels.shape[2]])
