"""Short labels of the attention layers of this library's models."""

from __future__ import annotations

import re

_LABELS = (
  (r"stem", "Stem"),
  (r"group(\d)_block(\d+)_spatial", r"Stage \1, block \2"),
  (r"(?:post_hoc|coarser)_(\d+)", r"Pyramid, level \1"),
  (r"(classes|boxes)_(\d+)", r"Head, \1 \2"),
  (r"(classes|boxes)_predictor_spatial", r"Head, \1 last"),
)


def label_of(name: str) -> str:
  """Returns the label of a layer, such as "Stage 3, block 2"; of others, the name."""
  layer, _, call = name.partition(":")
  for pattern, label in _LABELS:
    match = re.fullmatch(pattern, layer)
    if match:
      text = match.expand(label)
      return f"{text}, call {call}" if call else text
  return name
