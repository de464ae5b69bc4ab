"""Compares outputs that are neither probabilities nor detections, such as a detector's heads."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from sasa_tf.serving.verification.limits import Limits


@dataclasses.dataclass(frozen=True)
class RawComparison:
  """The difference between the outputs of an exported and a trained model on the same images.

  Attributes:
    signature: of the exported model.
    num_images: number of images.
    difference: largest absolute difference of an output.
    scale: largest absolute value of the trained model's outputs, at least 1.
    limits: that apply.
  """

  signature: str
  num_images: int
  difference: float
  scale: float
  limits: Limits

  def failures(self) -> list[str]:
    """Returns what exceeds the limits."""
    limit = self.limits.logits * self.scale
    if self.difference <= limit:
      return []
    return [f"outputs differ by up to {self.difference:.2g} (limit {limit:.2g})"]

  def __str__(self) -> str:
    """Returns one line with the numbers."""
    return (
      f"{self.signature}: outputs within {self.difference:.1e}, values up to {self.scale:.1e}, "
      f"{self.num_images} images"
    )


def compare_outputs(
  signature: str,
  trained: Mapping[str, np.ndarray],
  exported: Mapping[str, np.ndarray],
  limits: Limits,
) -> RawComparison:
  """Compares all outputs [B, ...].

  Args:
    signature: of the exported model.
    trained: outputs of the trained model by name.
    exported: outputs of the exported model by name.
    limits: that apply.
  """
  # NumPy's maximum keeps NaN.
  differences = [np.abs(exported[name] - value).max() for name, value in trained.items()]
  return RawComparison(
    signature,
    num_images=len(next(iter(trained.values()))),
    difference=float(np.max(differences)),
    scale=max(1.0, *(float(np.abs(value).max()) for value in trained.values())),
    limits=limits,
  )
