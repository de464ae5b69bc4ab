"""The operations of one layer call, as returned by a layer rule."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

from sasa_tf.analysis.cost.conventions import OP_KINDS

# Shape of one tensor, including the batch size of 1; all sizes are known.
Shape = tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class LayerOps:
  """Weights and operations of one layer call, for one image.

  Attributes:
    parameters: number of trainable weights.
    non_trainable_parameters: number of other weights, such as batch norm's moving averages.
    op_counts: {kind of operation in `OP_KINDS`: count}.
    moves_data: whether the call reads its inputs and writes its outputs; False for a reshape.

  Raises:
    ValueError: a kind of operation is unknown.
  """

  parameters: int = 0
  non_trainable_parameters: int = 0
  op_counts: Mapping[str, int] = dataclasses.field(default_factory=dict)
  moves_data: bool = True

  def __post_init__(self):
    unknown = sorted(set(self.op_counts) - set(OP_KINDS))
    if unknown:
      raise ValueError(
        f"unknown kinds of operations {unknown}; expected some of {tuple(OP_KINDS)}."
      )


FREE = LayerOps(moves_data=False)


def elements(shapes: Sequence[Shape]) -> int:
  """Returns the total number of elements of tensors with these shapes."""
  return sum(map(math.prod, shapes))


def channel_axis(layer: Any) -> int:
  """Returns the channel axis of a Keras layer with a `data_format`."""
  return 1 if layer.data_format == "channels_first" else -1


def activation_counts(layer: Any, outputs: Sequence[Shape]) -> dict[str, int]:
  """Returns the operations of a layer's `activation` argument."""
  name = getattr(layer.activation, "__name__", type(layer.activation).__name__)
  if layer.activation is None or name == "linear":
    return {}
  return {"softmax" if name == "softmax" else "activate": elements(outputs)}
