"""An export with another model than the trained one names the keys before anything is restored."""

import pytest
from official.core import train_utils

from sasa_tf.errors import UserError
from sasa_tf.training import experiment
from sasa_tf.training.model_differences import check_exported_model

DIGITS = "task.model.backbone.sasa_resnet"


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory):
  path = tmp_path_factory.mktemp("run")
  train_utils.serialize_config(experiment.load_experiment("sasa_resnet_digits"), str(path))
  return path


def params_of(overrides):
  return experiment.load_experiment("sasa_resnet_digits", params_override=overrides, mode="export")


@pytest.mark.parametrize(
  ("overrides", "expected"),
  [
    (f"{DIGITS}.kernel_size=5", [f"{DIGITS}.kernel_size is 3 in the training, 5 here"]),
    (f"{DIGITS}.model_id=38", [f"{DIGITS}.model_id is 26 in the training, 38 here"]),
    (
      "task.model.num_classes=11,task.model.norm_activation.activation=swish",
      [
        "num_classes is 10 in the training, 11 here",
        "activation is 'relu' in the training, 'swish'",
      ],
    ),
  ],
)
@pytest.mark.parametrize("checkpoint", ["best_ckpt/best_ckpt-4", "ckpt-8", "elsewhere"])
def test_differences_are_named(overrides, expected, checkpoint, model_dir):
  path = "/nonexistent/ckpt-8" if checkpoint == "elsewhere" else f"{model_dir}/{checkpoint}"
  with pytest.raises(UserError) as caught:
    check_exported_model(params_of(overrides), path, str(model_dir))
  message = str(caught.value)
  assert all(text in message for text in expected) and f"{model_dir}/params.yaml" in message


@pytest.mark.parametrize(
  "overrides",
  [
    None,
    f"{DIGITS}.implementation=blocked,task.model.dropout_rate=0.5,task.model.input_size=[9,9,3]",
  ],
)
def test_settings_without_effect_may_differ(overrides, model_dir):
  check_exported_model(params_of(overrides), f"{model_dir}/ckpt-8", None)


def test_unknown_training_is_not_compared():
  check_exported_model(params_of(f"{DIGITS}.kernel_size=5"), "/nonexistent/ckpt-8", None)
