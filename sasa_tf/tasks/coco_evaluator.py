"""COCO's average precision, overall and per category."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from sasa_tf.compat.model_garden import HookedCOCOEvaluator
from sasa_tf.errors import UserError

# What pycocotools raises for other files.
_INVALID_FILE_ERRORS = (
  OSError,
  ValueError,
  TypeError,
  KeyError,
  AttributeError,
  AssertionError,
  RecursionError,
)


class COCOEvaluator(HookedCOCOEvaluator):
  """Model Garden's COCO evaluator, with these differences.

  * An unreadable annotation file and images that are missing from it are errors that name them.
  * `per_category_metrics` yields "AP/NAME" and "AP50/NAME" for each category. Model Garden's
    evaluator needs a fork of pycocotools, and yields nothing without it.
  """

  def __init__(self, annotation_file: str | None, **options: Any):
    """Reads the annotation file.

    Args:
      annotation_file: COCO instances file; None for the boxes of the records.
      **options: see Model Garden's evaluator.

    Raises:
      UserError: the file cannot be read, or is no instances file.
    """
    try:
      super().__init__(annotation_file, **options)
    except _INVALID_FILE_ERRORS as error:
      if not annotation_file:
        raise
      raise UserError(
        f"task.annotation_file={annotation_file} cannot be read ({type(error).__name__}: {error}). "
        "Expected a COCO instances file in UTF-8, such as make_tfrecords writes. Omit "
        "task.annotation_file to use the boxes of the TFRecords."
      ) from error

  def evaluate(self) -> dict[str, np.float32]:
    """Returns {metric: value} over all images.

    Raises:
      UserError: images are missing from the annotation file.
    """
    annotated = self.annotated_image_ids()
    if annotated is not None:
      evaluated = self.evaluated_image_ids()
      missing = sorted(evaluated - annotated)
      if missing:
        raise UserError(
          f"task.annotation_file={self.annotation_file} has no images with the ids "
          f"{', '.join(map(str, missing[:5]))}{' ...' if len(missing) > 5 else ''}, which "
          f"task.validation_data has ({len(missing)} of {len(evaluated)} images). Use the "
          "annotations that these TFRecords were created from, or omit task.annotation_file to use "
          "the boxes of the TFRecords."
        )
    return super().evaluate()

  def per_category_metrics(self, coco_eval: Any, prefix: str = "") -> Mapping[str, np.float32]:
    """Returns AP and AP50 of each category over areas of all sizes; -1 if it has no boxes.

    Args:
      coco_eval: pycocotools' `COCOeval` after `accumulate`.
      prefix: prefix of the metrics' names.
    """
    precision = coco_eval.eval["precision"]  # [thresholds, recalls, categories, areas, maxDets]
    metrics = {}
    for index, category in enumerate(coco_eval.params.catIds):
      name = coco_eval.cocoGt.cats[category].get("name", category)
      category_precision = precision[:, :, index, 0, -1]
      for metric, values in (("AP", category_precision), ("AP50", category_precision[0])):
        valid = values[values > -1]
        metrics[f"{prefix}{metric}/{name}"] = np.float32(valid.mean() if valid.size else -1)
    return metrics
