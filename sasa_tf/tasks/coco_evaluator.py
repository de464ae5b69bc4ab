"""COCO's average precision, from Model Garden's evaluator with its faults mended."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from official.vision.evaluation import coco_evaluator

from sasa_tf.errors import UserError


class COCOEvaluator(coco_evaluator.COCOEvaluator):
  """As Model Garden's, except for three things.

  * The number of boxes of an image is a number. The stock parser makes it a vector of one, which
    NumPy from 2.4 on does not convert.
  * Images that the annotation file does not have are named.
  * With `per_category_metrics` there are "AP/NAME" and "AP50/NAME" for each category. The stock
    evaluator wants a fork of pycocotools, and without it gives nothing.
  """

  def _convert_to_numpy(
    self, groundtruths: Any, predictions: Any
  ) -> tuple[dict[str, Any], dict[str, Any]]:
    groundtruths, predictions = super()._convert_to_numpy(groundtruths, predictions)
    groundtruths["num_detections"] = np.reshape(groundtruths["num_detections"], [-1])
    return groundtruths, predictions

  def evaluate(self) -> dict[str, np.float32]:
    """Returns {metric: value} over all images seen.

    Raises:
      UserError: images that the annotation file does not have.
    """
    if self._annotation_file:
      seen = {int(image) for batch in self._predictions["source_id"] for image in batch}
      unknown = sorted(seen - set(self._coco_gt.getImgIds()))
      if unknown:
        raise UserError(
          f"task.annotation_file={self._annotation_file} has no images of the ids "
          f"{', '.join(map(str, unknown[:5]))}{' ...' if len(unknown) > 5 else ''}, which "
          f"task.validation_data has ({len(unknown)} of {len(seen)} images). Name the annotations "
          "that these TFRecords were made from, or leave task.annotation_file away: boxes are then "
          "taken from the data."
        )
    return super().evaluate()

  def _retrieve_per_category_metrics(
    self, coco_eval: Any, prefix: str = ""
  ) -> Mapping[str, np.float32]:
    """Returns AP and AP50 of each category over areas of all sizes; -1 where it has no boxes."""
    precision = coco_eval.eval["precision"]  # [thresholds, recalls, categories, areas, maxDets]
    metrics = {}
    for index, category in enumerate(coco_eval.params.catIds):
      name = coco_eval.cocoGt.cats[category].get("name", category)
      of_category = precision[:, :, index, 0, -1]
      for metric, values in (("AP", of_category), ("AP50", of_category[0])):
        known = values[values > -1]
        metrics[f"{prefix}{metric}/{name}"] = np.float32(known.mean() if known.size else -1)
    return metrics
