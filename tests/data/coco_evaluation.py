"""COCO evaluation of detections with an annotation file, by pycocotools."""

import json

from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval


def evaluated(path, detections):
  """Returns the 12 metrics of pycocotools; the first two are AP and AP50."""
  truth = COCO(path)
  evaluation = COCOeval(truth, truth.loadRes(detections), "bbox")
  evaluation.evaluate()
  evaluation.accumulate()
  evaluation.summarize()
  return evaluation.stats


def perfect_detections(path):
  return [
    {key: annotation[key] for key in ("image_id", "category_id", "bbox")} | {"score": 0.9}
    for annotation in json.loads(path.read_text())["annotations"]
    if not annotation["iscrowd"]
  ]
