"""The table of implementations of local attention, and the choice among them."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from sasa_tf.ops import reference

LocalAttention = Callable[..., tf.Tensor]

_IMPLEMENTATIONS: dict[str, LocalAttention] = {
  "reference": reference.local_attention,
}

# Names that the public function takes.
CHOICES = ("auto", *_IMPLEMENTATIONS)


def available_implementations() -> tuple[str, ...]:
  """Returns the names that `implementation=` takes besides "auto", the specification first."""
  return tuple(_IMPLEMENTATIONS)


def select(implementation: str, *, window_mask: bool) -> LocalAttention:
  """Returns the function that computes local attention for these arguments.

  Args:
    implementation: "auto" or one of `available_implementations()`.
    window_mask: False asks for HaloNet's relaxation.

  Raises:
    ValueError: an unknown name, or a request that the implementation does not serve.
  """
  if implementation not in CHOICES:
    raise ValueError(f"implementation must be one of {CHOICES}; received {implementation!r}.")
  name = "reference" if implementation == "auto" else implementation
  if not window_mask:
    raise ValueError(
      "window_mask=False (HaloNet: a query sees its whole block of keys) needs an implementation "
      f"that works in blocks of queries; {name!r} gathers each window exactly. Use "
      "window_mask=True."
    )
  return _IMPLEMENTATIONS[name]
