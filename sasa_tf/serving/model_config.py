"""The configuration of a model, without what it does not use."""

from __future__ import annotations

from typing import Any


def used_config(model: Any) -> dict[str, Any]:
  """Returns `task.model` without the types of backbone and decoder that it does not use.

  Args:
    model: Model Garden's configuration of a model.
  """
  config = model.as_dict()
  for part in ("backbone", "decoder"):
    if isinstance(config.get(part), dict) and "type" in config[part]:
      kind = config[part]["type"]
      config[part] = {"type": kind, kind: config[part].get(kind)}
  return config
