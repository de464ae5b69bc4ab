"""The table of local attention implementations, and the rules that select one."""

from __future__ import annotations

import contextlib
import contextvars
import dataclasses
import functools
import logging
import os
from collections.abc import Callable, Iterator

import tensorflow as tf

from sasa_tf.native import library
from sasa_tf.ops import reference
from sasa_tf.ops.blocked import local_attention as blocked
from sasa_tf.ops.compiled import fused
from sasa_tf.ops.export_context import (
  exported_gpu_kernels,
  exports_stock_operations,
  is_tracing_for_export,
)
from sasa_tf.ops.portable import portable_attention
from sasa_tf.ops.qkv_packing import PackedAttention, split_and_attend
from sasa_tf.ops.types import IMPLEMENTATION_NAMES, ImplementationName
from sasa_tf.ops.window import WindowGeometry


@dataclasses.dataclass(frozen=True)
class Implementation:
  """One way to compute local attention.

  Attributes:
    name: as the argument `implementation` has it.
    unsupported_reason: takes query, geometry, window_mask and qkv_parts; returns why the
      implementation does not support them, or None if it does.
    attend: takes query, key, value, relative_rows, relative_columns, geometry, scale and
      window_mask.
    attend_packed: the same for packed query, key and value, with pooling.
  """

  name: str
  unsupported_reason: Callable[[tf.Tensor | tf.TensorSpec, WindowGeometry, bool, int], str | None]
  attend: Callable[..., tf.Tensor]
  attend_packed: PackedAttention


_IMPLEMENTATIONS = {
  implementation.name: implementation
  for implementation in (
    Implementation(
      "reference",
      reference.unsupported_reason,
      reference.local_attention,
      split_and_attend(reference.local_attention, recomputes=False),
    ),
    Implementation(
      "blocked",
      blocked.unsupported_reason,
      blocked.local_attention,
      split_and_attend(blocked.local_attention, recomputes=True),
    ),
    Implementation(
      "fused", fused.unsupported_reason, fused.local_attention, fused.local_attention_packed
    ),
  )
}

ENVIRONMENT_VARIABLE = "SASA_TF_IMPLEMENTATION"

_context: contextvars.ContextVar[str | None] = contextvars.ContextVar(
  "implementation", default=None
)
_logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class AttentionRequest:
  """What the selection of an implementation depends on.

  Attributes:
    query: [B, H, W, N, D], or its shape and dtype.
    geometry: the window.
    window_mask: False for HaloNet's relaxation.
    qkv_parts: the arrays that are packed in one tensor with the query, itself included.
  """

  query: tf.Tensor | tf.TensorSpec
  geometry: WindowGeometry
  window_mask: bool
  qkv_parts: int = 1


def available_implementations() -> tuple[str, ...]:
  """Returns the names that `implementation=` takes besides "auto", the reference first.

  "fused" is included if its kernels have been built (`python -m sasa_tf.native.build`).
  """
  built = bool(library.load().platforms)
  return tuple(name for name in _IMPLEMENTATIONS if name != "fused" or built)


def check_implementation(name: str, source: str = "implementation") -> None:
  """Checks that a name is known; availability is checked when attention is computed.

  Args:
    name: "auto" or the name of an implementation.
    source: where the name comes from, for the error.

  Raises:
    ValueError: the name is unknown.
  """
  if name not in IMPLEMENTATION_NAMES:
    raise ValueError(f"{source} must be one of {IMPLEMENTATION_NAMES}; received {name!r}.")


@contextlib.contextmanager
def use_implementation(name: ImplementationName) -> Iterator[None]:
  """Context manager that sets what implementation="auto" selects.

  It is read when an operation is called eagerly or a `tf.function` is traced, and has precedence
  over the environment variable SASA_TF_IMPLEMENTATION, which does the same for the entire process.

  Args:
    name: one of `available_implementations()`, or "auto" for the library's own selection.

  Raises:
    ValueError: the name is unknown.
  """
  check_implementation(name, "use_implementation(name)")
  token = _context.set(name)
  try:
    yield
  finally:
    _context.reset(token)


@functools.cache
def _log_selection(name: str, reason: str) -> None:
  """Logs each distinct selection once."""
  _logger.info("local attention uses %r: %s", name, reason)


def _override() -> tuple[str, str] | None:
  """Returns the name that replaces "auto" and who requested it, or None."""
  name = _context.get()
  if name is not None:
    return None if name == "auto" else (name, "set by use_implementation")
  name = os.environ.get(ENVIRONMENT_VARIABLE, "auto")
  check_implementation(name, f"the environment variable {ENVIRONMENT_VARIABLE}")
  return None if name == "auto" else (name, f"set by {ENVIRONMENT_VARIABLE}")


def auto_may_use_compiled_kernels() -> bool:
  """Returns whether "auto" may select compiled kernels, also for other operations."""
  override = _override()
  return override[0] == "fused" if override else not exports_stock_operations()


def _unsupported_reason(name: str, request: AttentionRequest) -> str | None:
  return _IMPLEMENTATIONS[name].unsupported_reason(
    request.query, request.geometry, request.window_mask, request.qkv_parts
  )


def _fused_rejection(request: AttentionRequest) -> str | None:
  """Returns why "auto" does not select "fused", or None if it does."""
  if exports_stock_operations():
    return "exported models use TensorFlow's own operations"
  return _unsupported_reason("fused", request)


def _is_eager_and_small(request: AttentionRequest) -> bool:
  if not tf.executing_eagerly():
    return False
  return request.query.shape.num_elements() * request.geometry.size < 2**20


# "auto" selects the first whose condition holds. Measured on a CPU, forward and with the backward
# pass, from 4 x 4 to 56 x 56 pixels, heads 2 to 64 wide, windows of 3 to 7, with and without XLA.
_SELECTION_RULES: tuple[tuple[Callable[[AttentionRequest], bool], str, str], ...] = (
  (lambda r: not r.window_mask, "blocked", "only blocks support window_mask=False"),
  (
    # LiteRT lacks the patches of the reference.
    lambda r: r.geometry.size == 1 and not is_tracing_for_export(),
    "reference",
    "windows of one pixel share no keys",
  ),
  (_is_eager_and_small, "reference", "few eager operations on a small input"),
  (lambda r: _fused_rejection(r) is None, "fused", "one compiled kernel forward, one backward"),
  (lambda r: True, "blocked", "matrix products, without K x K copies of keys and values"),
)


def choose(request: AttentionRequest) -> tuple[str, str]:
  """Returns the name that "auto" selects unless it is overridden, and the reason."""
  name, reason = next((name, why) for holds, name, why in _SELECTION_RULES if holds(request))
  if reason == _SELECTION_RULES[-1][2]:
    reason += f" (and not 'fused': {_fused_rejection(request)})"
  return name, reason


def _portable(request: AttentionRequest) -> Implementation | None:
  """Returns the kernels that travel inside of the exported model, where they are requested."""
  kernels = exported_gpu_kernels()
  if kernels is None:
    return None
  reason = portable_attention.unsupported_reason(
    request.query, request.geometry, request.window_mask, request.qkv_parts
  )
  if reason is not None:
    kernels.stock.append(reason)
    return None
  kernels.layers += 1
  return Implementation(
    f"portable ({kernels.kernel_format})",
    portable_attention.unsupported_reason,
    functools.partial(portable_attention.local_attention, kernel_format=kernels.kernel_format),
    functools.partial(
      portable_attention.local_attention_packed, kernel_format=kernels.kernel_format
    ),
  )


def select(implementation: ImplementationName, request: AttentionRequest) -> Implementation:
  """Returns the implementation to use.

  Args:
    implementation: "auto" or one of `available_implementations()`.
    request: the attention to compute.

  Raises:
    ValueError: the name is unknown, or the implementation does not support the request.
  """
  check_implementation(implementation)
  name: str = implementation
  if implementation == "auto":
    override = _override()
    portable = None if override else _portable(request)
    if portable:
      return portable
    name, reason = override or choose(request)
    _log_selection(name, reason)
  unsupported = _unsupported_reason(name, request)
  if unsupported is not None:
    raise ValueError(
      f"implementation={name!r} cannot compute this: {unsupported}. Use implementation='auto', "
      "which selects one that can, or 'blocked'."
    )
  return _IMPLEMENTATIONS[name]
