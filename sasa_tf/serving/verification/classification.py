"""Compares the outputs of two classifiers."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from sasa_tf.serving.verification.limits import Limits


@dataclasses.dataclass(frozen=True)
class ClassificationComparison:
  """The difference between an exported and a trained classifier on the same images.

  Attributes:
    signature: of the exported model.
    num_images: number of images.
    probs_difference: largest absolute difference of probabilities.
    logits_difference: largest absolute difference of logits; 0 if the signature has none.
    logits_scale: largest absolute logit of the trained model, at least 1.
    same_top_classes: number of images with the same top class.
    equal_top_classes: the same, and those whose two classes are equally probable within the limit.
    limits: that apply.
  """

  signature: str
  num_images: int
  probs_difference: float
  logits_difference: float
  logits_scale: float
  same_top_classes: int
  equal_top_classes: int
  limits: Limits

  def failures(self) -> list[str]:
    """Returns what exceeds the limits."""
    limits, failed = self.limits, []
    # Negated, because comparisons with NaN are false.
    if not self.probs_difference <= limits.probs:
      failed.append(
        f"probabilities differ by up to {self.probs_difference:.2g} (limit {limits.probs:g})"
      )
    limit = limits.logits * self.logits_scale
    if not self.logits_difference <= limit:
      failed.append(f"logits differ by up to {self.logits_difference:.2g} (limit {limit:.2g})")
    if self.equal_top_classes < limits.top_classes * self.num_images:
      failed.append(
        f"the top classes of {self.num_images - self.same_top_classes} of {self.num_images} images "
        f"differ (limit {1 - limits.top_classes:.0%})"
      )
    return failed

  def __str__(self) -> str:
    """Returns one line with the numbers."""
    return (
      f"{self.signature}: probabilities within {self.probs_difference:.1e}, logits within "
      f"{self.logits_difference:.1e}, same top class for {self.same_top_classes} of "
      f"{self.num_images} images"
    )


def compare_classifiers(
  signature: str,
  trained: Mapping[str, np.ndarray],
  exported: Mapping[str, np.ndarray],
  limits: Limits,
) -> ClassificationComparison:
  """Compares `probs` and, if there are any, `logits` [B, classes].

  Args:
    signature: of the exported model.
    trained: outputs of the trained model by name.
    exported: outputs of the exported model by name.
    limits: that apply.
  """
  probs = trained["probs"]
  rows, before = np.arange(len(probs)), probs.argmax(axis=1)
  after = exported["probs"].argmax(axis=1)
  has_logits, logits = "logits" in trained, trained.get("logits")
  margin = probs[rows, before] - probs[rows, after]
  return ClassificationComparison(
    signature,
    len(probs),
    probs_difference=float(np.abs(exported["probs"] - probs).max()),
    logits_difference=float(np.abs(exported["logits"] - logits).max()) if has_logits else 0.0,
    logits_scale=max(1.0, float(np.abs(logits).max())) if has_logits else 1.0,
    same_top_classes=int((before == after).sum()),
    equal_top_classes=int(((before == after) | (margin <= min(limits.probs, 1e-3))).sum()),
    limits=limits,
  )
