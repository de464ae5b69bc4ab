"""Arguments of activation and batch norm, which backbone, decoder and head share."""

from __future__ import annotations

from typing import Any


def norm_arguments(config: Any) -> dict[str, Any]:
  """Returns the arguments that Model Garden's `NormActivation` sets."""
  return {
    "activation": config.activation,
    "use_sync_bn": config.use_sync_bn,
    "norm_momentum": config.norm_momentum,
    "norm_epsilon": config.norm_epsilon,
  }
