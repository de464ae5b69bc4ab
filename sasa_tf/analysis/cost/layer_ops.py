"""What a rule says about one call of a layer, and words for shapes."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

from sasa_tf.analysis.cost.conventions import KINDS

# Of one tensor, the batch of 1 included; all sizes are known.
Shape = tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Facts:
  """What one call of a layer needs, for one image.

  Attributes:
    parameters: weights that training moves.
    statistics: weights that it does not, such as batch norm's moving averages.
    work: {kind of work in `KINDS`: how often}.
    moves: whether the call reads its inputs and writes its outputs. False for what is a matter of
      bookkeeping alone, such as a change of shape.
  """

  parameters: int = 0
  statistics: int = 0
  work: Mapping[str, int] = dataclasses.field(default_factory=dict)
  moves: bool = True

  def __post_init__(self):
    unknown = sorted(set(self.work) - set(KINDS))
    if unknown:
      raise ValueError(f"unknown kinds of work {unknown}; expected some of {tuple(KINDS)}.")


FREE = Facts(moves=False)


def elements(shapes: Sequence[Shape]) -> int:
  """Returns how many numbers tensors of these shapes hold."""
  return sum(map(math.prod, shapes))


def channel_axis(layer: Any) -> int:
  """Returns the axis of the channels of a Keras layer that knows a data format."""
  return 1 if layer.data_format == "channels_first" else -1


def activation_work(layer: Any, outputs: Sequence[Shape]) -> dict[str, int]:
  """Returns the work of a layer's `activation` argument: none, softmax, or any other."""
  name = getattr(layer.activation, "__name__", type(layer.activation).__name__)
  if layer.activation is None or name == "linear":
    return {}
  return {"softmax" if name == "softmax" else "activate": elements(outputs)}
