"""What counts as a floating point operation: one price list a convention.

A layer's rule says how often it does each kind of work; a convention says what one of each costs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

# Kind of work -> what one of it is.
KINDS = {
  "multiply_add": "one product added to a sum: convolution, projection, q.k, a.v",
  "key_position": "one channel of q.r of one neighbour, beside q.k",
  "key_position_sum": "one logit put together, q.k + q.r",
  "lone_position": "one channel of q.r of one neighbour, without q.k, neighbour by neighbour",
  "axis_position": "one channel of q.r of one row or column, without q.k, axis by axis",
  "axis_position_sum": "one logit put together of its row's and its column's product",
  "softmax": "one logit made a weight",
  "normalize": "one element normalized",
  "activate": "one element through a non-linearity",
  "elementwise": "one element added to, or multiplied by, another: bias, shortcut",
  "pool": "one element of one pooling window",
  "stem_element": "one element of the output of the stem's attention",
}


@dataclasses.dataclass(frozen=True)
class Convention:
  """A price list.

  Attributes:
    name: as reports print it.
    summary: one line on what is counted.
    prices: FLOPs of one of each kind of work in `KINDS`; a kind that is left out costs nothing.
  """

  name: str
  summary: str
  prices: Mapping[str, int]

  def __post_init__(self):
    unknown = sorted(set(self.prices) - set(KINDS))
    if unknown:
      raise ValueError(
        f"convention {self.name!r} has prices for unknown kinds of work {unknown}; expected some "
        f"of {tuple(KINDS)}."
      )

  def flops(self, work: Mapping[str, int]) -> int:
    """Returns the FLOPs of `work`, {kind of work: how often}."""
    return sum(self.prices.get(kind, 0) * count for kind, count in work.items())


CONVENTIONS = {
  convention.name: convention
  for convention in (
    Convention(
      "mac",
      "2 a multiply-add of convolutions, projections, q.k, q.r and a.v, and the additions that "
      "join q.k to q.r; nothing else",
      # With `key_position_sum`, 1 a logit, ResNet-50 is 6.973 G, as published for this convention;
      # without it, 6.966 G.
      {"multiply_add": 2, "key_position": 2, "key_position_sum": 1, "lone_position": 2},
    ),
    Convention(
      "paper",
      "fitted to the paper's rows: logits as q.(k + r), 8 a logit for the softmax, 4 an element "
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
        # The rows with an attention stem were fitted with a non-linearity after its batch norm.
        # App. A.1 names none, and our stem has none.
        "stem_element": 1,
      },
    ),
  )
}


def find_convention(convention: str | Convention) -> Convention:
  """Returns the convention of a name, or the one that is given.

  Raises:
    ValueError: no convention has this name.
  """
  if isinstance(convention, Convention):
    return convention
  if convention not in CONVENTIONS:
    raise ValueError(
      f"convention must be one of {tuple(CONVENTIONS)} or a Convention; received {convention!r}."
    )
  return CONVENTIONS[convention]
