"""The detection experiment: the paper's recipe, a complete run, and its errors."""

import contextlib
import io
import re

import pytest
import tensorflow as tf

from sasa_tf import registry_imports  # noqa: F401
from sasa_tf.errors import UserError
from sasa_tf.training import checks, experiment, run
from tests.tasks.detection_records import SCENES, write_scenes

# Convolutions only and no XLA, which are fast to trace.
SMALL = {
  "runtime.enable_xla": False,
  "task.model.num_classes": 4,
  "task.model.input_size": "[64, 64, 3]",
  "task.model.max_level": 5,
  "task.model.backbone.sasa_resnet.model_id": 26,
  "task.model.backbone.sasa_resnet.width_multiplier": 0.0625,
  "task.model.backbone.sasa_resnet.num_heads": 2,
  "task.model.backbone.sasa_resnet.attention_groups": "[]",
  "task.model.decoder.sasa_fpn.num_filters": 8,
  "task.model.decoder.sasa_fpn.spatial": "conv",
  "task.model.head.num_filters": 8,
  "task.model.head.num_convs": 1,
  "task.model.head.spatial": "conv",
  "task.train_data.tfds_name": "''",
  "task.train_data.global_batch_size": 2,
  "task.train_data.shuffle_buffer_size": 4,
  "task.validation_data.tfds_name": "''",
  "task.validation_data.global_batch_size": 2,
  "trainer.train_steps": 2,
  "trainer.steps_per_loop": 2,
  "trainer.summary_interval": 2,
  "trainer.checkpoint_interval": 2,
  "trainer.validation_interval": 2,
}


def params_of(records, **changes):
  data = {f"task.{name}.input_path": records for name in ("train_data", "validation_data")}
  override = ",".join(f"{k}={v}" for k, v in {**SMALL, **data, **changes}.items())
  return experiment.load_experiment("retinanet_sasa_coco", params_override=override)


def run_experiment(params, model_dir, mode):
  return run.run_experiment(
    "retinanet_sasa_coco",
    params,
    mode=mode,
    model_dir=str(model_dir),
    enable_async_checkpointing=False,
  )


def test_coco_experiment_is_the_recipe_of_the_paper():
  params = experiment.load_experiment("retinanet_sasa_coco")
  task, steps = params.task, 118_287 // 64
  optimizer = params.trainer.optimizer_config
  assert task.train_data.global_batch_size == 64
  assert params.trainer.train_steps == 150 * steps
  assert optimizer.optimizer.type == "sgd" and optimizer.optimizer.sgd.momentum == 0.9
  assert optimizer.learning_rate.cosine.initial_learning_rate == 0.12
  assert optimizer.learning_rate.cosine.decay_steps == 150 * steps
  assert optimizer.warmup.linear.warmup_steps == steps
  assert optimizer.warmup.linear.warmup_learning_rate == 0
  assert optimizer.ema is None and task.init_checkpoint is None
  parser = task.train_data.parser
  assert parser.aug_rand_hflip and (parser.aug_scale_min, parser.aug_scale_max) == (0.8, 1.2)
  assert task.model.input_size == [640, 640, 3]
  assert task.model.num_classes == 91
  assert task.model.anchor.num_scales * len(task.model.anchor.aspect_ratios) == 6
  assert not task.validation_data.drop_remainder  # the last images are evaluated too


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
  """Returns the model_dir, the metrics and the output of a run of two steps."""
  model_dir = tmp_path_factory.mktemp("run")
  params = params_of(write_scenes(model_dir / "records"))
  printed = io.StringIO()
  with contextlib.redirect_stdout(printed):
    metrics = run_experiment(params, model_dir, "train_and_eval")
  return model_dir, metrics, printed.getvalue()


def test_run_from_records_to_average_precision(trained):
  model_dir, metrics, printed = trained
  assert {"AP", "AP50", "ARmax100", "total_loss"} <= set(metrics)
  assert tf.train.latest_checkpoint(str(model_dir)).endswith("ckpt-2")
  assert tf.train.latest_checkpoint(str(model_dir / "best_ckpt"))
  assert "train step 2/2 (100%)" in printed
  assert re.search(r"evaluation at step 2: .*\bAP \d", printed)


def test_separate_evaluator_computes_the_same_metrics(trained):
  model_dir, metrics, _ = trained
  followed = run_experiment(params_of(model_dir / "records"), model_dir, "continuous_eval")
  names = [name for name in metrics if name.startswith("A") or name.endswith("loss")]
  assert len(names) > 12
  for name in names:
    assert followed[name] == pytest.approx(metrics[name], rel=1e-4), name


def test_init_checkpoint_must_have_the_same_backbone(trained):
  model_dir, *_ = trained
  start = {
    "task.init_checkpoint": model_dir / "best_ckpt",
    "task.init_checkpoint_modules": "backbone",
  }
  checks.resolve_init_checkpoint(params_of("", **start).task)
  implementation = {"task.model.backbone.sasa_resnet.implementation": "reference"}
  checks.resolve_init_checkpoint(params_of("", **start, **implementation).task)
  deeper = params_of("", **start, **{"task.model.backbone.sasa_resnet.model_id": 38})
  message = r"another backbone .*params\.yaml.*model_id: 26 in the checkpoint, 38 in this run"
  with pytest.raises(UserError, match=message):
    checks.resolve_init_checkpoint(deeper.task)


def test_missing_init_checkpoint_raises_an_error(tmp_path):
  params = params_of("", **{"task.init_checkpoint": tmp_path / "missing"})
  with pytest.raises(UserError, match="no such checkpoint"):
    checks.resolve_init_checkpoint(params.task)


@pytest.mark.parametrize(
  ("scenes", "ids", "message"),
  [
    ([[([0, 0, 48, 64], 4)]], None, r"expected 1 to 3.*num_classes is 4, background.*1 more than"),
    (SCENES, ["1", "two", "3"], r"image id is not a number \(.*: two\).*regenerate_source_id"),
  ],
)
def test_errors_caused_by_the_data(trained, tmp_path, scenes, ids, message):
  model_dir, *_ = trained
  params = params_of(write_scenes(tmp_path / "a", scenes, ids))
  with pytest.raises(UserError, match=message):
    run_experiment(params, model_dir, "eval")
