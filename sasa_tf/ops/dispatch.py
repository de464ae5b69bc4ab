"""The table of implementations of local attention, and the choice among them."""

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
from sasa_tf.ops.export_context import being_exported
from sasa_tf.ops.window import WindowGeometry

LocalAttention = Callable[..., tf.Tensor]

_IMPLEMENTATIONS: dict[str, LocalAttention] = {
  "reference": reference.local_attention,
  "blocked": blocked.local_attention,
  "fused": fused.local_attention,
}

# Names that the public function takes.
CHOICES = ("auto", *_IMPLEMENTATIONS)

ENVIRONMENT_VARIABLE = "SASA_TF_IMPLEMENTATION"

_context: contextvars.ContextVar[str | None] = contextvars.ContextVar(
  "implementation", default=None
)
_logger = logging.getLogger(__name__)


def available_implementations() -> tuple[str, ...]:
  """Returns the names that `implementation=` takes besides "auto", the specification first.

  "fused" is among them where its kernels have been built (`python -m sasa_tf.native.build`).
  """
  built = bool(library.load().platforms)
  return tuple(name for name in _IMPLEMENTATIONS if name != "fused" or built)


def check_implementation(name: str, source: str = "implementation") -> None:
  """Checks a name alone: whether the implementation is available shows when it is to compute.

  Args:
    name: "auto" or the name of an implementation.
    source: where the name comes from, for the message.

  Raises:
    ValueError: an unknown name.
  """
  if name not in CHOICES:
    raise ValueError(f"{source} must be one of {CHOICES}; received {name!r}.")


@contextlib.contextmanager
def use_implementation(name: str) -> Iterator[None]:
  """Decides what implementation="auto" means inside of the `with` statement.

  It acts when operations are called or a `tf.function` is traced, and goes before the environment
  variable SASA_TF_IMPLEMENTATION, which does the same for the whole process.

  Args:
    name: one of `available_implementations()`, or "auto" to let the library choose.

  Raises:
    ValueError: an unknown name.
  """
  check_implementation(name, "use_implementation(name)")
  token = _context.set(name)
  try:
    yield
  finally:
    _context.reset(token)


@functools.cache
def _log_choice(name: str, reason: str) -> None:
  """Logs each distinct choice once."""
  _logger.info("local attention uses %r: %s", name, reason)


def _forced() -> tuple[str, str] | None:
  """Returns what "auto" has been decided to stand for and by what, or None."""
  name = _context.get()
  if name is not None:
    return None if name == "auto" else (name, "use_implementation says so")
  name = os.environ.get(ENVIRONMENT_VARIABLE, "auto")
  check_implementation(name, f"the environment variable {ENVIRONMENT_VARIABLE}")
  return None if name == "auto" else (name, f"{ENVIRONMENT_VARIABLE} says so")


def may_be_compiled() -> bool:
  """Whether "auto" may stand for compiled kernels, also those of other operations."""
  forced = _forced()
  return forced[0] == "fused" if forced else not being_exported()


@dataclasses.dataclass(frozen=True)
class Request:
  """What the choice depends on.

  Attributes:
    query: [B, H, W, N, D], or its shape and dtype.
    geometry: the window.
    window_mask: False asks for HaloNet's relaxation.
  """

  query: tf.Tensor | tf.TensorSpec
  geometry: WindowGeometry
  window_mask: bool


def _eager_and_small(request: Request) -> bool:
  if not tf.executing_eagerly():
    return False
  return request.query.shape.num_elements() * request.geometry.size < 2**20


def _fused_refusal(request: Request) -> str | None:
  """Why "auto" is not "fused"; None if it may be."""
  if being_exported():
    return "exported models use TensorFlow's own operations"
  return fused.refusal(request.query, request.geometry, request.window_mask)


# The first rung whose condition holds is "auto". Measured on a CPU, forward and with the backward
# pass, from 4 x 4 to 56 x 56 pixels, heads 2 to 64 wide, windows of 3 to 7, with and without XLA.
_LADDER: tuple[tuple[Callable[[Request], bool], str, str], ...] = (
  (lambda r: not r.window_mask, "blocked", "only blocks can do without the window mask"),
  (lambda r: r.geometry.size == 1, "reference", "windows of one pixel share nothing"),
  (_eager_and_small, "reference", "few eager operations, on few numbers"),
  (lambda r: _fused_refusal(r) is None, "fused", "one compiled kernel forward, one backward"),
  (lambda r: True, "blocked", "matrix products, without K x K copies of keys and values"),
)


def choose(request: Request) -> tuple[str, str]:
  """Returns what "auto" stands for, and why.

  Raises:
    ValueError: an unknown name in the environment variable.
  """
  forced = _forced()
  if forced:
    return forced
  name, reason = next((name, reason) for holds, name, reason in _LADDER if holds(request))
  if reason == _LADDER[-1][2]:
    reason += f" (and not 'fused': {_fused_refusal(request)})"
  return name, reason


def select(implementation: str, request: Request) -> LocalAttention:
  """Returns the function that computes local attention.

  Args:
    implementation: "auto" or one of `available_implementations()`.
    request: what it has to serve.

  Raises:
    ValueError: an unknown name, or a request that the implementation does not serve.
  """
  check_implementation(implementation)
  name = implementation
  if implementation == "auto":
    name, reason = choose(request)
    _log_choice(name, reason)
  if name == "fused":
    refusal = fused.refusal(request.query, request.geometry, request.window_mask)
    if refusal is None:
      return fused.local_attention
    raise ValueError(
      f"implementation='fused' cannot compute this: {refusal}. Use implementation='auto', which "
      "takes another where need be, or 'blocked'."
    )
  if name == "reference":
    if request.window_mask:
      return reference.local_attention
    raise ValueError(
      "window_mask=False (HaloNet: a query sees its whole block of keys) needs an implementation "
      "that works in blocks of queries; 'reference' gathers each window exactly. Use "
      "implementation='blocked', or window_mask=True."
    )
  return functools.partial(_IMPLEMENTATIONS[name], window_mask=request.window_mask)
