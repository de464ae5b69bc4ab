"""Query, key and value packed into one tensor, as one matrix product computes them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Protocol

import tensorflow as tf

from sasa_tf.ops.average_pooling import average_pool_heads
from sasa_tf.ops.window import WindowGeometry

# Recomputes packed QKV after the given tensors; see `local_attention_2d_qkv_packed`.
RecomputeQkv = Callable[[Sequence[tf.Tensor]], tf.Tensor]


@dataclasses.dataclass(frozen=True)
class Projection:
  """The product that packed query, key and value are, without biases.

  Attributes:
    inputs: [B, H, W, C].
    kernel: [C, 3 * N * D].
  """

  inputs: tf.Tensor
  kernel: tf.Tensor


class PackedAttention(Protocol):
  """Local attention of packed query, key and value, with average pooling of the output."""

  def __call__(
    self,
    qkv: tf.Tensor,
    relative_rows: tf.Tensor | None,
    relative_columns: tf.Tensor | None,
    geometry: WindowGeometry,
    scale: float,
    *,
    recompute_qkv: RecomputeQkv | None = None,
    projection: Projection | None = None,
    pool_size: int = 1,
  ) -> tf.Tensor:
    """Returns [B, ceil(H / pool_size), ceil(W / pool_size), N, D]."""
    ...


def split_qkv(qkv: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor | None, tf.Tensor]:
  """Splits packed QKV.

  Args:
    qkv: [B, H, W, 3, N, D], or [B, H, W, 2, N, D] of query and value.

  Returns:
    Query, key (None without keys) and value, each [B, H, W, N, D].
  """
  query, *key, value = tf.unstack(qkv, axis=3)
  return query, key[0] if key else None, value


def split_and_attend(attend: Callable[..., tf.Tensor], *, recomputes: bool) -> PackedAttention:
  """Returns the packed form of an implementation that takes separate query, key and value.

  Args:
    attend: local attention of query, key and value, such as `reference.local_attention`.
    recomputes: whether `attend` has the argument `recompute`, see `blocked.local_attention`.
  """

  def attend_packed(
    qkv,
    relative_rows,
    relative_columns,
    geometry,
    scale,
    *,
    recompute_qkv=None,
    projection=None,
    pool_size=1,
  ):
    del projection
    arguments = {}
    if recomputes and recompute_qkv is not None:
      arguments["recompute"] = lambda earlier: split_qkv(recompute_qkv(earlier))
    output = attend(*split_qkv(qkv), relative_rows, relative_columns, geometry, scale, **arguments)
    return average_pool_heads(output, pool_size)

  return attend_packed
