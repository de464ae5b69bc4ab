"""Private APIs of Model Garden."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import tensorflow as tf
from official.core import exp_factory
from official.vision.evaluation import coco_evaluator
from official.vision.ops import preprocess_ops


def registered_experiments() -> list[str]:
  """Returns the names of all registered experiments, sorted."""
  return sorted(exp_factory._REGISTERED_CONFIGS)


@contextlib.contextmanager
def replaced_normalization(normalize_image: Callable[..., Any]) -> Iterator[None]:
  """Makes Model Garden's parsers normalize images with another function.

  Args:
    normalize_image: takes the arguments of `preprocess_ops.normalize_image`.
  """
  original = preprocess_ops.normalize_image
  preprocess_ops.normalize_image = normalize_image
  try:
    yield
  finally:
    preprocess_ops.normalize_image = original


@contextlib.contextmanager
def uncompressed_data_service() -> Iterator[None]:
  """Makes the datasets that Model Garden gets from a tf.data service travel uncompressed.

  Batches of normalized images shrink by 3 to 15 %, and their decompression takes as long as
  everything else that a training does to receive them.
  """
  original = tf.data.experimental.service.distribute
  tf.data.experimental.service.distribute = functools.partial(original, compression=None)
  try:
    yield
  finally:
    tf.data.experimental.service.distribute = original


class HookedCOCOEvaluator(coco_evaluator.COCOEvaluator):
  """Model Garden's COCO evaluator with public hooks, and with support for NumPy 2.4.

  Model Garden's parser of TFRecords yields `num_detections` as a vector of one element per image,
  which NumPy does not convert to an integer from version 2.4 on.
  """

  @property
  def annotation_file(self) -> str | None:
    """Path of the annotation file, or None if the ground truth is in the dataset."""
    return self._annotation_file or None

  def evaluated_image_ids(self) -> set[int]:
    """Returns the ids of the images that predictions were added for."""
    return {int(image) for batch in self._predictions["source_id"] for image in batch}

  def annotated_image_ids(self) -> set[int] | None:
    """Returns the ids of the images in the annotation file, or None without a file."""
    return set(self._coco_gt.getImgIds()) if self._annotation_file else None

  def per_category_metrics(self, coco_eval: Any, prefix: str = "") -> Mapping[str, np.float32]:
    """Returns the metrics of each category.

    Args:
      coco_eval: pycocotools' `COCOeval` after `accumulate`.
      prefix: prefix of the metrics' names.
    """
    return super()._retrieve_per_category_metrics(coco_eval, prefix)

  def _convert_to_numpy(
    self, groundtruths: Any, predictions: Any
  ) -> tuple[dict[str, Any], dict[str, Any]]:
    groundtruths, predictions = super()._convert_to_numpy(groundtruths, predictions)
    groundtruths["num_detections"] = np.reshape(groundtruths["num_detections"], [-1])
    return groundtruths, predictions

  def _retrieve_per_category_metrics(
    self, coco_eval: Any, prefix: str = ""
  ) -> Mapping[str, np.float32]:
    return self.per_category_metrics(coco_eval, prefix)


def rebuild_export_module(module: Any) -> Any:
  """Returns an export module like the given one, with a new model in the current precision.

  Args:
    module: a `official.vision.serving.export_base.ExportModule`.
  """
  return type(module)(
    module.params,
    batch_size=module._batch_size,
    input_image_size=module._input_image_size,
    input_type=module._input_type,
  )
