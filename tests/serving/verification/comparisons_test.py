"""The numbers that compare two models, and what exceeds their limits."""

import dataclasses

import numpy as np
import pytest

from sasa_tf.serving.verification.average_precision import Detections, average_precision
from sasa_tf.serving.verification.class_names import without_class_names
from sasa_tf.serving.verification.classification import compare_classifiers
from sasa_tf.serving.verification.detection import compare_detectors
from sasa_tf.serving.verification.limits import LIMITS
from sasa_tf.serving.verification.raw_outputs import compare_outputs

FLOAT32 = LIMITS["float32"]


def classifier(logits):
  logits = np.array(logits, np.float32)
  exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
  return {"logits": logits, "probs": exponentials / exponentials.sum(axis=1, keepdims=True)}


TRAINED = classifier([[4, 0, -8], [0, 2, 0]])


def test_equal_classifiers():
  same = compare_classifiers("prepared", TRAINED, TRAINED, FLOAT32)
  assert (same.probs_difference, same.logits_difference, same.logits_scale) == (0, 0, 8)
  assert (same.num_images, same.same_top_classes) == (2, 2)
  assert same.failures() == []


def test_differences_of_classifiers_are_measured():
  other = classifier([[4, 0, -8], [3, 2, 0.5]])
  found = compare_classifiers("prepared", TRAINED, other, FLOAT32)
  assert found.logits_difference == 3
  assert found.probs_difference == np.abs(TRAINED["probs"] - other["probs"]).max()
  assert found.same_top_classes == found.equal_top_classes == 1
  probabilities, logits, classes = found.failures()
  assert probabilities.startswith("probabilities differ by up to 0.5")
  assert logits == "logits differ by up to 3 (limit 0.008)"
  assert classes == "the top classes of 1 of 2 images differ (limit 0%)"
  assert str(found).startswith("prepared: probabilities within 5.")
  int8 = compare_classifiers("prepared", TRAINED, other, LIMITS["int8"])
  assert int8.failures() == ["the top classes of 1 of 2 images differ (limit 20%)"]


def test_equally_probable_classes_may_change_places():
  trained, exported = classifier([[1, 1.00001, 0]]), classifier([[1.00001, 1, 0]])
  found = compare_classifiers("prepared", trained, exported, FLOAT32)
  assert (found.same_top_classes, found.equal_top_classes) == (0, 1)
  assert found.failures() == []


@pytest.mark.parametrize("output", ["logits", "probs"])
def test_not_a_number_exceeds_every_limit(output):
  spoiled = {name: value.copy() for name, value in TRAINED.items()}
  spoiled[output][0, 2] = np.nan
  for limits in (FLOAT32, LIMITS["bfloat16"]):
    found = compare_classifiers("prepared", TRAINED, spoiled, limits)
    assert any("nan" in failure for failure in found.failures())


def detector(boxes, scores, classes, slots=4):
  """Returns the outputs for one image."""
  empty = slots - len(scores)
  return {
    "detection_boxes": np.array([boxes + [[0, 0, 0, 0]] * empty], np.float32),
    "detection_scores": np.array([scores + [0] * empty], np.float32),
    "detection_classes": np.array([classes + [0] * empty], np.int32),
    "num_detections": np.array([len(scores)], np.int32),
  }


BOXES = [[10, 10, 30, 40], [50, 50, 90, 80], [12, 11, 32, 40]]
FOUND = detector(BOXES, [0.9, 0.8, 0.7], [1, 2, 2])


def compared(exported, limits=FLOAT32):
  return compare_detectors("prepared", FOUND, exported, [100], limits)


def test_equal_detectors():
  same = compared(FOUND)
  assert (same.num_trained, same.num_exported, same.num_matched) == (3, 3, 3)
  assert (same.score_difference, same.box_difference, same.average_precision) == (0, 0, 1)
  assert same.failures() == []


def test_detections_are_matched_in_any_order():
  same = compared(detector(BOXES[::-1], [0.7, 0.8, 0.9], [2, 2, 1]))
  assert (same.num_matched, same.score_difference, same.box_difference) == (3, 0, 0)


def test_moved_boxes_and_changed_scores_are_measured():
  moved = [[10, 10, 30, 40], [50, 52, 90, 82], [12, 11, 32, 40]]
  found = compared(detector(moved, [0.9, 0.75, 0.7], [1, 2, 2]))
  assert found.num_matched == 3
  assert found.score_difference == pytest.approx(0.05, abs=1e-6)
  assert (found.box_difference, found.relative_box_difference) == (2, 0.02)
  scores, boxes, precision = found.failures()
  assert scores == "scores differ by up to 0.05 (limit 0.0001)"
  assert boxes.startswith("boxes differ by up to 0.02 of the longer side")
  assert precision.startswith("AP against the trained model's detections is 0.")
  assert compared(FOUND, dataclasses.replace(FLOAT32, boxes=0.01)).failures() == []


@pytest.mark.parametrize(
  "exported",
  [
    detector(BOXES[:2], [0.9, 0.8], [1, 2]),  # one is missing
    detector(BOXES, [0.9, 0.8, 0.7], [1, 2, 3]),  # one has another class
    detector([*BOXES, [0, 0, 9, 9]], [0.9, 0.8, 0.7, 0.6], [1, 2, 2, 3]),  # one is new
    detector([], [], []),
  ],
)
def test_different_detections_fail(exported):
  found = compared(exported)
  assert found.num_matched < max(found.num_trained, found.num_exported)
  assert found.failures()[0].startswith(f"only {found.num_matched} of the trained model's 3")
  assert "detections match" in str(found)


def test_boxes_without_area_are_ignored():
  exported = detector([*BOXES, [70, 100, 80, 100]], [0.9, 0.8, 0.7, 0.6], [1, 2, 2, 1])
  assert compared(exported) == compared(FOUND)


def test_nan_scores_fail():
  exported = {name: value.copy() for name, value in FOUND.items()}
  exported["detection_scores"][0, 1] = np.nan
  assert any("nan" in failure for failure in compared(exported).failures())


def test_average_precision():
  both = [Detections(np.array(BOXES, float), np.array([0.9, 0.8, 0.7]), np.array([1, 2, 2]))]
  none = [Detections(np.zeros([0, 4]), np.zeros([0]), np.zeros([0], int))]
  assert average_precision(both, both) == average_precision(none, none) == 1
  assert average_precision(both, none) == average_precision(none, both) == 0
  # Of class 2 only the first is found: precision 1 up to a recall of 0.5, that is at 51 of 101.
  part = [Detections(*(values[:2] for values in both[0]))]
  assert average_precision(both, part) == pytest.approx((1 + 51 / 101) / 2)


def test_raw_outputs():
  trained = {"output_0": np.array([[1, -4]]), "output_1": np.array([[0.5]])}
  found = compare_outputs("normalized", trained, trained, FLOAT32)
  assert (found.num_images, found.difference, found.scale, found.failures()) == (1, 0, 4, [])
  other = {**trained, "output_1": np.array([[0.25]])}
  (failure,) = compare_outputs("normalized", trained, other, FLOAT32).failures()
  assert failure == "outputs differ by up to 0.25 (limit 0.004)"
  broken = {**trained, "output_0": np.array([[1, np.nan]])}
  assert "nan" in compare_outputs("normalized", trained, broken, FLOAT32).failures()[0]


def test_sorted_class_names_become_probabilities():
  outputs = {
    "classes": np.array([[b"cat", b"ant", b"bee"], [b"bee", b"cat", b"ant"]], object),
    "scores": np.array([[0.7, 0.2, 0.1], [0.5, 0.3, 0.2]], np.float32),
  }
  found = without_class_names(outputs, ["ant", "bee", "cat"])
  assert found.keys() == {"probs"}
  np.testing.assert_array_equal(
    found["probs"], np.array([[0.2, 0.1, 0.7], [0.2, 0.5, 0.3]], np.float32)
  )
  with pytest.raises(ValueError, match=r"classes .*bee.* are not those of the model"):
    without_class_names(outputs, ["ant", "dog", "cat"])


def test_names_of_detections_are_compared():
  names = ["background", "wasp", "fly"]
  texts = np.array([[b"wasp", b"fly", b"fly", b""]], object)
  found = without_class_names({**FOUND, "detection_class_names": texts}, names)
  assert found.keys() == FOUND.keys()
  with pytest.raises(ValueError, match="detection_class_names are not those"):
    without_class_names({**FOUND, "detection_class_names": texts[:, ::-1]}, names)
