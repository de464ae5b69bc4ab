"""One run of Model Garden's trainer, from a checked configuration to its last evaluation."""

from __future__ import annotations

import contextlib
import json
import os
import sys

import tensorflow as tf
from official.core import config_definitions, task_factory, train_lib, train_utils
from official.modeling import performance
from official.vision.utils import summary_manager

import sasa_tf
from sasa_tf.configs.retinanet import RetinaNetTask
from sasa_tf.errors import UserError
from sasa_tf.tasks.labels import LABEL_ERROR
from sasa_tf.training import checks, strategy
from sasa_tf.training.experiment import RUN_FILE
from sasa_tf.training.progress import Progress

# TensorFlow's words for a string that should be a number, as ids of images should.
_NO_NUMBER = "StringToNumberOp could not correctly convert string"


def run_experiment(
  experiment: str,
  params: config_definitions.ExperimentConfig,
  *,
  mode: str,
  model_dir: str,
  num_logical_cpus: int = 0,
  enable_async_checkpointing: bool = True,
) -> dict[str, float]:
  """Trains, evaluates or both, as `official.vision.train` does.

  Args:
    experiment: name that the configuration came from.
    params: the configuration.
    mode: Model Garden's, for example "train_and_eval".
    model_dir: for checkpoints, summaries and params.yaml.
    num_logical_cpus: replicas of a dry run on the processor, or 0.
    enable_async_checkpointing: whether to write checkpoints beside the training.

  Returns:
    The metrics of the last evaluation, {} without one.

  Raises:
    UserError: something that the user can mend, before or during the run.
  """
  train = "train" in mode
  if train:
    checks.check_data("task.train_data", params.task.train_data)
  if "eval" in mode:
    checks.check_data("task.validation_data", params.task.validation_data)
  _refuse_float16_with_ema(params)
  if train:
    checks.check_init_checkpoint(params.task)
  checks.check_model_dir(model_dir, params, train=train)
  distribution = strategy.build_strategy(params.runtime, num_logical_cpus)
  print(strategy.describe(distribution, params.task.train_data.global_batch_size), flush=True)

  if train:
    train_utils.serialize_config(params, model_dir)
    _write_run_file(experiment, model_dir)
  if params.runtime.mixed_precision_dtype:
    performance.set_mixed_precision_policy(params.runtime.mixed_precision_dtype)
  with distribution.scope():
    task = task_factory.get_task(params.task, logging_dir=model_dir)

  progress = Progress(params.trainer.train_steps, lambda: int(runner.trainer.global_step.numpy()))
  # Orbit prints a line for each of its doings, and logs it too; `progress` takes its place.
  with contextlib.redirect_stdout(_Discard()):
    runner = train_lib.OrbitExperimentRunner(
      distribution_strategy=distribution,
      task=task,
      mode=mode,
      params=params,
      model_dir=model_dir,
      train_actions=[progress.on_train],
      eval_actions=[progress.on_evaluate],
      eval_summary_manager=summary_manager.maybe_build_eval_summary_manager(
        params=params, model_dir=model_dir
      ),
      enable_async_checkpointing=enable_async_checkpointing,
    )
    step = int(runner.trainer.global_step.numpy())
    if train and step >= params.trainer.train_steps:
      print(
        f"{model_dir} already holds step {step} of {params.trainer.train_steps}: nothing left to "
        "train. Raise trainer.train_steps to go on, or use --mode=eval.",
        file=sys.stderr,
      )
    progress.begin()
    try:
      runner.run()
    except tf.errors.InvalidArgumentError as error:
      if LABEL_ERROR in error.message:
        raise UserError(_label_message(error.message, params)) from error
      if _NO_NUMBER in error.message:
        raise UserError(_source_id_message(error.message)) from error
      raise
    finally:
      progress.close()
  return progress.evaluation


class _Discard:
  """A text stream into nothing."""

  def write(self, text: str) -> int:
    return len(text)

  def flush(self) -> None:
    pass


def _refuse_float16_with_ema(params: config_definitions.ExperimentConfig) -> None:
  if params.runtime.mixed_precision_dtype == "float16" and params.trainer.optimizer_config.ema:
    raise UserError(
      "runtime.mixed_precision_dtype=float16 together with trainer.optimizer_config.ema fails in "
      "Model Garden, whose loss scaling does not know the averaging optimizer. Use bfloat16, or "
      "set trainer.optimizer_config.ema to null."
    )


def _write_run_file(experiment: str, model_dir: str) -> None:
  with tf.io.gfile.GFile(os.path.join(model_dir, RUN_FILE), "w") as file:
    json.dump({"experiment": experiment, "sasa_tf": sasa_tf.__version__}, file)


def _label_message(message: str, params: config_definitions.ExperimentConfig) -> str:
  """The assertion's message down to the values it saw."""
  start = message.index(LABEL_ERROR)
  seen = " ".join(message[start:].split("[[", maxsplit=1)[0].split())
  told = f"{seen}. task.model.num_classes is {params.task.model.num_classes}"
  if isinstance(params.task, RetinaNetTask):
    return (
      f"{told}, background counted as class 0; set it to 1 more than the highest class of the data "
      "(91 for COCO, also through TFDS), or correct the data."
    )
  return (
    f"{told}; set it to the number of classes of the data, or correct the data (TFRecords of "
    "ImageNet from Model Garden's script count from 1 and need 1001)."
  )


def _source_id_message(message: str) -> str:
  start = message.index(_NO_NUMBER)
  return (
    f"an image's id is no number ({message[start:].splitlines()[0]}). COCO's evaluation wants "
    "image/source_id to be a number written as a string; write the TFRecords again, or set "
    "task.train_data.decoder.simple_decoder.regenerate_source_id and that of task.validation_data."
  )
