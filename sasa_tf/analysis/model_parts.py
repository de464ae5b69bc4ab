"""The functional models that a classifier or a detector consists of."""

from __future__ import annotations

from typing import Any

from sasa_tf.compat.keras import graph_of


def model_parts(model: Any) -> list[Any]:
  """Returns the parts of a detector in the order of execution, or the model itself."""
  if graph_of(model) or not all(hasattr(model, part) for part in ("backbone", "decoder", "head")):
    return [model]
  # Model Garden wraps the head of this library.
  head = getattr(model.head, "head", model.head)
  return [part for part in (model.backbone, model.decoder, head) if part is not None]
