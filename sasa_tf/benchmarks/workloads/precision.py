"""Keras's dtype policies by the dtype of the computation; variables are float32."""

from __future__ import annotations


def policy_name(dtype: str) -> str:
  """Returns the name of the policy, the same in both Kerases."""
  return dtype if dtype == "float32" else f"mixed_{dtype}"
