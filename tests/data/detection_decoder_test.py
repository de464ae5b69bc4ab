"""Model Garden's decoder reads what the detection converters write."""

import glob

import numpy as np
import pytest
import tensorflow as tf
from official.vision.dataloaders.tf_example_decoder import TfExampleDecoder

from sasa_tf.data.detection import coco

from . import box_data


@pytest.fixture(scope="module")
def decoded(tmp_path_factory):
  """{source id: decoded tensors} of a converted data set."""
  root = tmp_path_factory.mktemp("decoder")
  boxes = [
    (7, 90, [2.5, 4, 18, 11], {"area": 77.5, "iscrowd": 0}),
    (7, 1, [0, 0, 40, 24], {"area": 960, "iscrowd": 1}),
    (581929, 1, [5, 6, 7, 8]),
  ]
  content = box_data.coco_content((7, 9, 581929), boxes, ((1, "person"), (90, "toothbrush")))
  box_data.write_coco(root / "coco", content)
  coco.convert(root / "coco/images", root / "coco/instances.json", root / "out", num_processes=1)
  dataset = tf.data.TFRecordDataset(glob.glob(f"{root}/out/train-*")).map(TfExampleDecoder().decode)
  return {tensors["source_id"]: tensors for tensors in dataset.as_numpy_iterator()}


def test_source_ids_match_the_annotation_file(decoded):
  assert decoded.keys() == {b"7", b"9", b"581929"}


def test_decodes_boxes_classes_areas_and_crowds(decoded):
  tensors = decoded[b"7"]
  np.testing.assert_allclose(
    tensors["groundtruth_boxes"],
    [[4 / 24, 2.5 / 40, 15 / 24, 20.5 / 40], [0, 0, 1, 1]],
    rtol=1e-6,
  )
  assert tensors["groundtruth_classes"].tolist() == [90, 1]
  assert tensors["groundtruth_area"].tolist() == [77.5, 960]
  assert tensors["groundtruth_is_crowd"].tolist() == [False, True]
  assert tensors["image"].shape == (24, 40, 3)
  assert (tensors["height"], tensors["width"]) == (24, 40)


def test_decodes_an_image_without_boxes(decoded):
  tensors = decoded[b"9"]
  assert tensors["groundtruth_boxes"].shape == (0, 4)
  assert tensors["groundtruth_classes"].shape == (0,)
  assert tensors["groundtruth_area"].shape == (0,)
  assert tensors["groundtruth_is_crowd"].shape == (0,)
