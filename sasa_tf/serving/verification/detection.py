"""Compares the outputs of two detectors."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from sasa_tf.serving.verification.average_precision import Detections, average_precision
from sasa_tf.serving.verification.limits import Limits

# Boxes of the same class match if they overlap at least this much.
_MIN_IOU = 0.5


@dataclasses.dataclass(frozen=True)
class DetectionComparison:
  """The difference between an exported and a trained detector on the same images.

  Attributes:
    signature: of the exported model.
    num_images: number of images.
    num_trained: number of detections of the trained model in all images.
    num_exported: the same of the exported model.
    num_matched: number of detections that both found.
    score_difference: largest absolute difference of the scores of matched detections.
    box_difference: largest absolute difference of the coordinates of matched boxes, in their unit.
    relative_box_difference: the same, as a share of the longer side of the image.
    average_precision: COCO AP of the exported model's detections, with those of the trained model
      as the ground truth.
    limits: that apply.
  """

  signature: str
  num_images: int
  num_trained: int
  num_exported: int
  num_matched: int
  score_difference: float
  box_difference: float
  relative_box_difference: float
  average_precision: float
  limits: Limits

  def failures(self) -> list[str]:
    """Returns what exceeds the limits."""
    limits, failed = self.limits, []
    most = max(self.num_trained, self.num_exported)
    if self.num_matched < limits.matched * most:
      failed.append(
        f"only {self.num_matched} of the trained model's {self.num_trained} and the exported "
        f"model's {self.num_exported} detections match (limit {limits.matched:.0%})"
      )
    # Negated, because comparisons with NaN are false.
    if not self.score_difference <= limits.probs:
      failed.append(f"scores differ by up to {self.score_difference:.2g} (limit {limits.probs:g})")
    if not self.relative_box_difference <= limits.boxes:
      failed.append(
        f"boxes differ by up to {self.relative_box_difference:.2g} of the longer side of the image "
        f"(limit {limits.boxes:g})"
      )
    if not self.average_precision >= limits.average_precision:
      failed.append(
        f"AP against the trained model's detections is {self.average_precision:.3f} "
        f"(limit {limits.average_precision:g})"
      )
    return failed

  def __str__(self) -> str:
    """Returns one line with the numbers."""
    return (
      f"{self.signature}: {self.num_matched} of {self.num_trained} detections match in "
      f"{self.num_images} images, scores within {self.score_difference:.1e}, boxes within "
      f"{self.box_difference:.1e}, AP against the trained model {self.average_precision:.3f}"
    )


def compare_detectors(
  signature: str,
  trained: Mapping[str, np.ndarray],
  exported: Mapping[str, np.ndarray],
  longer_sides: Sequence[float],
  limits: Limits,
) -> DetectionComparison:
  """Compares boxes, scores and classes of the valid detections whose boxes have an area.

  Args:
    signature: of the exported model.
    trained: outputs of the trained model by name.
    exported: outputs of the exported model by name.
    longer_sides: of the images, in the unit of the boxes.
    limits: that apply.
  """
  before, after = _valid(trained), _valid(exported)
  matched, score, box, relative = 0, 0.0, 0.0, 0.0
  for one, other, side in zip(before, after, longer_sides, strict=True):
    rows, columns = _match(one, other)
    matched += len(rows)
    if len(rows):
      of_boxes = _largest(one.boxes[rows], other.boxes[columns])
      # NumPy's maximum keeps NaN.
      score = float(np.maximum(score, _largest(one.scores[rows], other.scores[columns])))
      box = float(np.maximum(box, of_boxes))
      relative = float(np.maximum(relative, of_boxes / side))
  return DetectionComparison(
    signature,
    num_images=len(before),
    num_trained=sum(len(each.scores) for each in before),
    num_exported=sum(len(each.scores) for each in after),
    num_matched=matched,
    score_difference=score,
    box_difference=box,
    relative_box_difference=relative,
    average_precision=average_precision(before, after),
    limits=limits,
  )


def _valid(outputs: Mapping[str, np.ndarray]) -> list[Detections]:
  names = ("detection_boxes", "detection_scores", "detection_classes", "num_detections")
  found = []
  for boxes, scores, classes, number in zip(*(outputs[name] for name in names), strict=True):
    # Boxes without area, clipped from the padding, overlap with nothing, not even with themselves.
    valid = (np.arange(len(scores)) < int(number)) & ~(boxes[:, 2:] <= boxes[:, :2]).any(axis=1)
    found.append(Detections(boxes[valid], scores[valid], classes[valid].astype(int)))
  return found


def _largest(one: np.ndarray, other: np.ndarray) -> float:
  return float(np.abs(one - other).max())


def _match(one: Detections, other: Detections) -> tuple[np.ndarray, np.ndarray]:
  """Returns the indices of pairs of detections, those that overlap most first."""
  overlap = _iou(one.boxes, other.boxes)
  # Of equal overlaps, the nearest score: suppression keeps boxes of one place in several classes.
  overlap = np.where(one.classes[:, None] == other.classes[None], overlap, -1.0)
  nearness = overlap - 1e-3 * np.abs(one.scores[:, None] - other.scores[None])
  pairs, taken_rows, taken_columns = [], set(), set()
  for flat in np.argsort(-nearness, axis=None, kind="stable").tolist():
    row, column = divmod(flat, len(other.scores))
    if overlap[row, column] < _MIN_IOU or row in taken_rows or column in taken_columns:
      continue
    pairs.append((row, column))
    taken_rows.add(row)
    taken_columns.add(column)
  rows, columns = np.array(pairs, dtype=int).reshape(-1, 2).T
  return rows, columns


def _iou(one: np.ndarray, other: np.ndarray) -> np.ndarray:
  """Returns the intersections over union of all pairs of boxes."""
  one, other = one[:, None].astype(np.float64), other[None].astype(np.float64)
  sides = np.minimum(one[..., 2:], other[..., 2:]) - np.maximum(one[..., :2], other[..., :2])
  intersection = np.clip(sides, 0, None).prod(axis=-1)
  areas = [(boxes[..., 2:] - boxes[..., :2]).prod(axis=-1) for boxes in (one, other)]
  return intersection / np.maximum(areas[0] + areas[1] - intersection, 1e-12)
