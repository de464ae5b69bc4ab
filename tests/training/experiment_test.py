"""Experiments, strict overrides and the checks before a run."""

import json
import re

import numpy as np
import pytest
import tensorflow as tf
from official.core import exp_factory, task_factory

from sasa_tf import registry_imports  # noqa: F401
from sasa_tf.errors import UserError
from sasa_tf.training import checks, experiment, progress, results

# Experiment -> number of trainable parameters of its model, including the classifier.
EXPERIMENTS = {
  "sasa_resnet_imagenet": 18_015_504,  # paper Table 1
  "sasa_resnet_cifar10": 2_087_254,
  "sasa_resnet_digits": 528_328,
}


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_experiments_validate_and_build(name):
  params = experiment.load_experiment(name)
  model = task_factory.get_task(params.task).build_model()
  assert model.output_shape == (None, params.task.model.num_classes)
  assert sum(int(np.prod(w.shape)) for w in model.trainable_weights) == EXPERIMENTS[name]


def test_imagenet_experiment_is_the_recipe_of_the_paper():
  params = experiment.load_experiment("sasa_resnet_imagenet")
  steps = 1_281_167 // 4096
  optimizer = params.trainer.optimizer_config
  assert params.trainer.train_steps == 130 * steps
  assert optimizer.optimizer.sgd.nesterov and optimizer.optimizer.sgd.momentum == 0.9
  assert optimizer.learning_rate.cosine.initial_learning_rate == 1.6
  assert optimizer.learning_rate.cosine.decay_steps == 130 * steps
  assert optimizer.warmup.linear.warmup_steps == 10 * steps
  assert optimizer.ema.average_decay == 0.9999
  assert params.task.model.norm_activation.norm_momentum == 0.9999
  assert params.task.losses.label_smoothing == 0 and params.task.losses.l2_weight_decay == 1e-4
  assert not params.task.validation_data.drop_remainder  # the last images are evaluated too


def test_parent_experiment_is_not_modified():
  before = exp_factory.get_exp_config("resnet_imagenet").as_dict()
  exp_factory.get_exp_config("sasa_resnet_digits")
  assert exp_factory.get_exp_config("resnet_imagenet").as_dict() == before


@pytest.mark.parametrize(
  "override",
  [
    "task.model.backbone.sasa_resnet.attention_groups=[3,4]",
    "{task: {model: {backbone: {sasa_resnet: {attention_groups: [3, 4]}}}}}",
    json.dumps({"task": {"model": {"backbone": {"sasa_resnet": {"attention_groups": [3, 4]}}}}}),
  ],
)
def test_overrides_in_every_notation(override):
  params = experiment.load_experiment("sasa_resnet_digits", params_override=override)
  assert params.task.model.backbone.sasa_resnet.attention_groups == [3, 4]


@pytest.mark.parametrize("excluded", [{"content", "locality_strength"}, {"content", "positions"}])
def test_every_field_of_the_backbone_reaches_the_model(excluded):
  changes = {
    "model_id": 26,
    "stem": "attention",
    "stem_variant": "standalone",
    "stem_num_heads": 2,
    "stem_num_mixtures": 4,
    "attention_groups": [4],
    "width_multiplier": 0.0625,
    "kernel_size": 5,
    "num_heads": 2,
    "positions": "none",
    "border": "mask",
    "implementation": "reference",
    "baseline": "squeeze_excitation",
    "group_strides": [1, 2, 1, 2],
    "zero_init_residual": False,
    "locality_strength": 2.0,
  }
  changes = {key: value for key, value in changes.items() if key not in excluded}
  default = exp_factory.get_exp_config("sasa_resnet_imagenet").task.model.backbone.sasa_resnet
  assert set(default.as_dict()) == {*changes, *excluded}
  override = json.dumps({"task": {"model": {"backbone": {"sasa_resnet": changes}}}})
  params = experiment.load_experiment("sasa_resnet_digits", params_override=override)
  arguments = task_factory.get_task(params.task).build_model().backbone.get_config()
  for name, value in changes.items():
    assert arguments[name] == (tuple(value) if isinstance(value, list) else value)


def test_config_file_may_choose_another_optimizer(tmp_path):
  file = tmp_path / "a.yaml"
  file.write_text(
    "trainer: {optimizer_config: {optimizer: {type: adam, adam: {epsilon: 0.5}}, "
    "learning_rate: {type: constant, constant: {learning_rate: 0.25}}}}"
  )
  config = experiment.load_experiment("sasa_resnet_cifar10", [str(file)]).trainer.optimizer_config
  assert (config.optimizer.type, config.optimizer.get().epsilon) == ("adam", 0.5)
  assert config.learning_rate.get().learning_rate == 0.25
  message = "no key 'adamm' in trainer.optimizer_config.optimizer. Did you mean 'adam"
  with pytest.raises(UserError, match=message):
    experiment.load_experiment(
      "sasa_resnet_cifar10", (), "trainer.optimizer_config.optimizer.adamm.epsilon=1"
    )


def test_files_in_one_flag_are_named(tmp_path):
  for name in ("a", "b"):
    (tmp_path / name).touch()
  with pytest.raises(UserError, match=r"expected one file\. Repeat the flag for several"):
    experiment.load_experiment("sasa_resnet_digits", [f"{tmp_path}/a,{tmp_path}/b"])


def test_overrides_take_precedence_over_files(tmp_path):
  file = tmp_path / "a.yaml"
  file.write_text("trainer: {train_steps: 5, validation_steps: 7}")
  params = experiment.load_experiment("sasa_resnet_digits", [str(file)], "trainer.train_steps=6")
  assert (params.trainer.train_steps, params.trainer.validation_steps) == (6, 7)


@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    (("sasa_resnet_digit",), "unknown experiment 'sasa_resnet_digit'.*'sasa_resnet_digits'"),
    (
      ("sasa_resnet_digits", (), "task.model.backbone.sasa_resnet.atention_groups=[1]"),
      "no key 'atention_groups' in task.model.backbone.sasa_resnet. .*'attention_groups'",
    ),
    (("sasa_resnet_digits", (), "trainr.train_steps=1"), "no key 'trainr' at the top.*'trainer'"),
    (("sasa_resnet_digits", ("cifar10/sasa_resnet62.yaml",)), "no such file.*sasa_resnet26"),
    (("sasa_resnet_digits", (), "{a: ["), "cannot be parsed"),
  ],
)
def test_errors_suggest_the_closest_known_names(arguments, message):
  with pytest.raises(UserError, match=message):
    experiment.load_experiment(*arguments)


def test_trained_experiment(tmp_path):
  with pytest.raises(UserError, match=r"has no run\.json"):
    experiment.load_trained_experiment(str(tmp_path), None)
  with pytest.raises(UserError, match="received neither"):
    experiment.load_trained_experiment(None, None)


def digits_params(override=""):
  return experiment.load_experiment("sasa_resnet_digits", params_override=override)


def test_missing_and_empty_data(tmp_path):
  pattern = f"{tmp_path}/train-*"
  params = digits_params(f"task.train_data.input_path={pattern}")
  with pytest.raises(UserError, match=r"no file matches.*make_tfrecords"):
    checks.check_data("task.train_data", params.task.train_data)
  (tmp_path / "train-0").touch()
  with pytest.raises(UserError, match="the 1 files have no records"):
    checks.check_data("task.train_data", params.task.train_data)
  (tmp_path / "train-0").write_bytes(b"\0corrupt" * 9)
  checks.check_data("task.train_data", params.task.train_data)
  (tmp_path / ".committing.json").touch()
  with pytest.raises(UserError, match=r"a conversion to .* is replacing the files, or was killed"):
    checks.check_data("task.train_data", params.task.train_data)


@pytest.mark.parametrize(
  "override", ["task.train_data.tfds_name=cifar10", "task.train_data.input_path=''"]
)
def test_data_must_be_configured_exactly_once(override):
  with pytest.raises(UserError, match="exactly one of input_path"):
    checks.check_data("task.train_data", digits_params(override).task.train_data)


def test_unwritable_model_dir_raises_an_error(tmp_path):
  file = tmp_path / "file"
  file.touch()
  with pytest.raises(UserError, match="cannot be written"):
    checks.check_model_dir(str(file / "run"), digits_params(), train=True)


def test_evaluation_needs_a_checkpoint(tmp_path):
  with pytest.raises(UserError, match="holds no checkpoint to evaluate"):
    checks.check_model_dir(str(tmp_path), digits_params(), train=False)


def test_model_dir_of_another_model_raises_an_error(tmp_path):
  from official.core import train_utils

  tf.train.Checkpoint(x=tf.Variable(1.0)).save(str(tmp_path / "ckpt"))
  with pytest.raises(UserError, match=r"no params\.yaml"):
    checks.check_model_dir(str(tmp_path), digits_params(), train=True)
  train_utils.serialize_config(digits_params(), str(tmp_path))
  checks.check_model_dir(str(tmp_path), digits_params("trainer.train_steps=1"), train=True)
  with pytest.raises(UserError, match=r"another model.*attention_groups: \[1, 2, 3, 4\] in the ch"):
    other = digits_params("task.model.backbone.sasa_resnet.attention_groups=[1]")
    checks.check_model_dir(str(tmp_path), other, train=True)


def test_find_label_file(tmp_path):
  assert checks.find_label_file(f"{tmp_path}/train-*") is None
  (tmp_path / "labels.txt").write_text("a\n")
  assert checks.find_label_file(f"{tmp_path}/train-*") == tmp_path / "labels.txt"


def test_progress_lines(capsys):
  step, seconds = [0], [0.0]
  lines = progress.TrainingProgress(
    20, lambda: step[0], batch_size=32, seconds_between_lines=0, clock=lambda: seconds[0]
  )
  lines.begin()
  for step[0], seconds[0] in ((5, 60.0), (10, 62.0)):  # the first loop compiles
    lines.on_train({"loss": tf.constant(0.5)})
  seconds[0] = 70.0
  lines.on_evaluate({"accuracy": np.float32(0.25), "image": np.zeros((2, 2))})
  step[0], seconds[0] = 20, 74.0
  lines.on_train({})
  printed = re.sub(r"memory \d+\.\d GiB", "memory", capsys.readouterr().out).splitlines()
  assert printed == [
    "train step 5/20 (25%), memory, loss 0.5",
    "train step 10/20 (50%), 2.5 steps/s, 80 images/s, 4 s left, memory, loss 0.5",
    "evaluation at step 10: accuracy 0.25",
    "train step 20/20 (100%), 2.5 steps/s, 80 images/s, memory",
  ]
  assert lines.evaluation == {"accuracy": 0.25}


def test_best_checkpoint_prefers_best_then_averaged_then_last(tmp_path):
  params = experiment.load_experiment("sasa_resnet_imagenet")
  assert results.best_checkpoint(str(tmp_path), params) is None
  with pytest.raises(UserError, match="holds no checkpoint"):
    results.find_checkpoint(None, str(tmp_path), params)
  for subdirectory in ("", "ema_checkpoints", "best_ckpt"):
    path = tf.train.Checkpoint(x=tf.Variable(1.0)).save(str(tmp_path / subdirectory / "ckpt"))
    assert results.find_checkpoint(None, str(tmp_path), params) == path
  assert results.find_checkpoint(path, None, params) == path
