"""Error messages for missing data."""

import pytest

from sasa_tf import registry_imports  # noqa: F401
from sasa_tf.errors import UserError
from sasa_tf.training import checks, experiment


@pytest.mark.parametrize(
  ("name", "converters"),
  [
    ("sasa_resnet_digits", {"digits", "image_folder"}),
    ("retinanet_sasa_scenes", {"scenes", "voc", "coco"}),
  ],
)
def test_error_for_missing_records_suggests_the_converters_of_the_task(name, converters, tmp_path):
  override = f"task.train_data.input_path={tmp_path}/train-*"
  data = experiment.load_experiment(name, params_override=override).task.train_data
  with pytest.raises(UserError, match="make_tfrecords") as caught:
    checks.check_data("task.train_data", data)
  words = set(str(caught.value).replace("(", " ").split())
  assert words & {"digits", "image_folder", "scenes", "voc", "coco"} == converters
