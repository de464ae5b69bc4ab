"""COCO's average precision of one set of detections against another."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval


class Detections(NamedTuple):
  """The detections in one image.

  Attributes:
    boxes: [P, 4], (ymin, xmin, ymax, xmax).
    scores: [P].
    classes: int [P].
  """

  boxes: np.ndarray
  scores: np.ndarray
  classes: np.ndarray


def average_precision(truth: Sequence[Detections], found: Sequence[Detections]) -> float:
  """Returns the AP at IoU 0.5 to 0.95 of `found`, with the boxes of `truth` as the ground truth.

  It is 1 if there are no detections at all, and 0 if only one of the two has detections.

  Args:
    truth: detections by image.
    found: detections by image, of the same images.
  """
  expected, predicted = _annotations(truth), _annotations(found)
  if not expected or not predicted:
    return float(not expected and not predicted)
  with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints its progress
    coco = COCO()
    coco.dataset = {
      "images": [{"id": i} for i in range(len(truth))],
      "categories": [{"id": label} for label in sorted({each["category_id"] for each in expected})],
      "annotations": expected,
    }
    coco.createIndex()
    evaluation = COCOeval(coco, coco.loadRes(predicted), "bbox")
    evaluation.params.maxDets = [max(len(each.scores) for each in found)]
    evaluation.evaluate()
    evaluation.accumulate()
  precision = evaluation.eval["precision"][..., 0, -1]  # of all areas
  return float(precision[precision >= 0].mean())


def _annotations(detections: Sequence[Detections]) -> list[dict[str, Any]]:
  found: list[dict[str, Any]] = []
  for image, (boxes, scores, classes) in enumerate(detections):
    for (ymin, xmin, ymax, xmax), score, label in zip(
      boxes.tolist(), scores.tolist(), classes.tolist(), strict=True
    ):
      found.append(
        {
          "id": len(found) + 1,  # pycocotools takes a match with id 0 for none
          "image_id": image,
          "category_id": label,
          "bbox": [xmin, ymin, xmax - xmin, ymax - ymin],
          "area": (xmax - xmin) * (ymax - ymin),
          "iscrowd": 0,
          "score": score,
        }
      )
  return found
