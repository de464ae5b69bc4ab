"""Conventions for counting floating point operations (FLOPs).

The rule of a layer counts its operations by kind; a convention gives the FLOPs of each kind.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

# Kind of operation -> what is counted.
OP_KINDS = {
  "multiply_add": "multiply-adds of convolutions, projections, q.k and a.v",
  "key_position": "multiply-adds of q.r, in attention that also has q.k",
  "key_position_sum": "additions q.k + q.r, one per logit",
  "position_only": "multiply-adds of q.r without q.k, computed per neighbor",
  "axis_position": "multiply-adds of q.r without q.k, computed per row and column of the window",
  "axis_position_sum": "additions of the row's and the column's product, one per logit",
  "softmax": "logits of a softmax",
  "normalize": "normalized elements",
  "activate": "elements of a non-linearity",
  "elementwise": "elementwise additions and multiplications: bias, shortcut",
  "pool": "elements of all pooling windows",
  "stem_element": "output elements of the attention stem",
}


@dataclasses.dataclass(frozen=True)
class Convention:
  """A convention for counting FLOPs.

  Attributes:
    name: shown in reports.
    summary: description of what is counted, shown in reports.
    flops_per_op: {kind in `OP_KINDS`: FLOPs per operation}; missing kinds count as 0.
  """

  name: str
  summary: str
  flops_per_op: Mapping[str, int]

  def __post_init__(self):
    unknown = sorted(set(self.flops_per_op) - set(OP_KINDS))
    if unknown:
      raise ValueError(
        f"convention {self.name!r} has FLOPs for unknown kinds of operations {unknown}; expected "
        f"some of {tuple(OP_KINDS)}."
      )

  def flops(self, op_counts: Mapping[str, int]) -> int:
    """Returns the FLOPs of {kind of operation: count}."""
    return sum(self.flops_per_op.get(kind, 0) * count for kind, count in op_counts.items())


CONVENTIONS = {
  convention.name: convention
  for convention in (
    Convention(
      "mac",
      "2 per multiply-add of convolutions, projections, q.k, q.r and a.v, and the additions "
      "q.k + q.r; nothing else",
      # With 1 per logit for `key_position_sum`, SASA-ResNet-50 with a convolutional stem has
      # 6.973 G, as published for this convention; without it, 6.966 G.
      {"multiply_add": 2, "key_position": 2, "key_position_sum": 1, "position_only": 2},
    ),
    Convention(
      "paper",
      "fitted to the paper's rows: logits as q.(k + r), 8 per logit for the softmax, 4 per element "
      "for normalization, 1 for activations, additions and pooling",
      {
        "multiply_add": 2,
        "key_position": 1,
        "axis_position": 2,
        "axis_position_sum": 1,
        "softmax": 8,
        "normalize": 4,
        "activate": 1,
        "elementwise": 1,
        "pool": 1,
        # The rows with an attention stem fit only with a non-linearity after its batch norm, which
        # App. A.1 does not mention and this library's stem does not have.
        "stem_element": 1,
      },
    ),
  )
}


def find_convention(convention: str | Convention) -> Convention:
  """Returns the convention with this name; returns a `Convention` unchanged.

  Raises:
    ValueError: there is no convention with this name.
  """
  if isinstance(convention, Convention):
    return convention
  if convention not in CONVENTIONS:
    raise ValueError(
      f"convention must be one of {tuple(CONVENTIONS)} or a Convention; received {convention!r}."
    )
  return CONVENTIONS[convention]
