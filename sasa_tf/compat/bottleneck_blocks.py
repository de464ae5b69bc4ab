"""The layers of Model Garden's bottleneck blocks, which have no public names."""

from __future__ import annotations

from typing import Any


def is_residual_block(layer: Any) -> bool:
  """Returns whether a layer of a backbone is a residual or bottleneck block."""
  return hasattr(layer, "_conv1")


def bottleneck_layers(block: Any) -> dict[str, tuple[Any, Any]] | None:
  """Returns {part: (convolution, batch norm)} of a built block.

  Args:
    block: for which `is_residual_block` is true.

  Returns:
    The parts "reduce", "spatial" and "expand", and "shortcut" in the first block of a stage. None
    if the block is no bottleneck.
  """
  if not hasattr(block, "_conv3"):
    return None
  layers = {
    "reduce": (block._conv1, block._norm1),
    "spatial": (block._conv2, block._norm2),
    "expand": (block._conv3, block._norm3),
  }
  if block._use_projection:
    layers["shortcut"] = (block._shortcut, block._norm0)
  return layers
