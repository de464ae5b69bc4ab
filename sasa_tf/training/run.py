"""One run of Model Garden's trainer, from a checked configuration to its last evaluation."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import sys
import tempfile
from collections.abc import Callable

import tensorflow as tf
from official.core import config_definitions, task_factory, train_lib, train_utils
from official.modeling import performance
from official.vision.utils import summary_manager

import sasa_tf
from sasa_tf.configs.retinanet import RetinaNetTask
from sasa_tf.errors import UserError
from sasa_tf.tasks.labels import LABEL_ERROR, is_missing
from sasa_tf.training import (
  checkpoints,
  checks,
  data_faults,
  modes,
  multi_worker,
  report,
  roles,
  strategy,
)
from sasa_tf.training.cluster import read_cluster
from sasa_tf.training.cluster_controller import ClusterController
from sasa_tf.training.continuous_eval import CheckpointFollower, evaluate_each
from sasa_tf.training.controller import Controller
from sasa_tf.training.experiment import RUN_FILE
from sasa_tf.training.peers import telling_of_lost_peers
from sasa_tf.training.preemption import StopRequest
from sasa_tf.training.progress import Progress
from sasa_tf.training.trainer import Trainer

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
  on_nonfinite: str = "stop",
  max_corrupt_records: int = 0,
) -> dict[str, float]:
  """Trains, evaluates or both, as `official.vision.train` does.

  Args:
    experiment: name that the configuration came from.
    params: the configuration.
    mode: Model Garden's, for example "train_and_eval".
    model_dir: for checkpoints, summaries and params.yaml.
    num_logical_cpus: replicas of a dry run on the processor, or 0.
    enable_async_checkpointing: whether to write checkpoints beside the training.
    on_nonfinite: "stop" or "skip" steps whose loss or gradients are not finite.
    max_corrupt_records: how many records of a data set may be left out; 0 for none.

  Returns:
    The metrics of the last evaluation, {} without one.

  Raises:
    UserError: something that the user can mend, before or during the run.
    PreemptedError: SIGTERM ended the run, which is saved.
    PeerLostError: another process of the training is gone.
  """
  runtime = params.runtime
  cluster = read_cluster(runtime.worker_hosts, runtime.task_index)
  role = roles.role_of(params, mode, cluster)
  with (
    telling_of_lost_peers(role.cluster),
    multi_worker.output_directory(model_dir, role.writes, params) as output_dir,
    tempfile.TemporaryDirectory(prefix="sasa_tf_records_") as scratch,
  ):
    return _run_role(
      experiment,
      params,
      role,
      model_dir,
      output_dir,
      num_logical_cpus,
      enable_async_checkpointing,
      on_nonfinite,
      functools.partial(data_faults.leave_out, limit=max_corrupt_records, scratch=scratch),
    )


def _run_role(
  experiment: str,
  params: config_definitions.ExperimentConfig,
  role: roles.Role,
  model_dir: str,
  output_dir: str,
  num_logical_cpus: int,
  enable_async_checkpointing: bool,
  on_nonfinite: str,
  leave_out_corrupt: Callable[[config_definitions.TaskConfig, str], config_definitions.TaskConfig],
) -> dict[str, float]:
  """Does this process's part; it writes to `output_dir`, which is `model_dir` or another one."""
  mode, cluster = role.mode, role.cluster
  train, follow = "train" in mode, mode == "continuous_eval"
  stop = StopRequest()
  if train:
    checks.check_data("task.train_data", params.task.train_data)
  if "eval" in mode:
    checks.check_data("task.validation_data", params.task.validation_data)
  _refuse_float16_with_ema(params)
  if train:
    checks.check_init_checkpoint(params.task)
  follower = CheckpointFollower(
    model_dir,
    timeout=params.trainer.continuous_eval_timeout,
    interrupted=lambda: stop.received,
  )
  if follow:
    follower.wait_for_first()
  checks.check_model_dir(model_dir, params, train=train, write=train and role.writes)
  if cluster is None:
    runtime = params.runtime.replace(distribution_strategy=role.distribution_strategy)
    distribution = strategy.build_strategy(runtime, num_logical_cpus)
  else:
    distribution = multi_worker.build_strategy(cluster, params.runtime, num_logical_cpus)
  topology = strategy.describe(distribution, _batches(params, mode))
  if role.writes:
    print(topology, flush=True)
  as_given = params
  if cluster is not None:
    params = multi_worker.agree_on_run(distribution, cluster, experiment, params, mode)

  if train and role.writes:
    checkpoints.mend(model_dir)
    if params.trainer.best_checkpoint_export_subdir:
      checkpoints.mend_best(os.path.join(model_dir, params.trainer.best_checkpoint_export_subdir))
    train_utils.serialize_config(as_given, model_dir)
    _write_run_file(experiment, model_dir)
  if params.runtime.mixed_precision_dtype:
    performance.set_mixed_precision_policy(params.runtime.mixed_precision_dtype)
  params = params.replace(task=leave_out_corrupt(params.task, mode))
  with distribution.scope():
    task = task_factory.get_task(params.task, logging_dir=output_dir)

  controller_cls = functools.partial(Controller, stop=stop)
  if cluster is not None:
    controller_cls = functools.partial(
      ClusterController, cluster=cluster, model_dir=model_dir, stop=stop
    )
  progress = Progress(
    params.trainer.train_steps,
    lambda: int(runner.trainer.global_step.numpy()),
    stream=None if role.writes else _Discard(),
  )
  # Orbit prints a line for each of its doings, and logs it too; `progress` takes its place.
  with contextlib.redirect_stdout(_Discard()):
    with distribution.scope():
      trainer = train_utils.create_trainer(
        params,
        task,
        train=train,
        evaluate="eval" in mode,
        checkpoint_exporter=train_lib.maybe_create_best_ckpt_exporter(params, output_dir),
        trainer_cls=functools.partial(Trainer, on_nonfinite=on_nonfinite),
      )
    runner = train_lib.OrbitExperimentRunner(
      distribution_strategy=distribution,
      task=task,
      mode=mode,
      params=params,
      model_dir=output_dir,
      trainer=trainer,
      train_actions=[progress.on_train],
      eval_actions=[progress.on_evaluate],
      controller_cls=controller_cls,
      eval_summary_manager=summary_manager.maybe_build_eval_summary_manager(
        params=params, model_dir=output_dir
      ),
      # A thread that writes must not meet the other processes beside the one that trains.
      enable_async_checkpointing=enable_async_checkpointing and cluster is None,
    )
    step = int(runner.trainer.global_step.numpy())
    if train and role.writes and step >= params.trainer.train_steps:
      print(
        f"{model_dir} already holds step {step} of {params.trainer.train_steps}: nothing left to "
        "train. Raise trainer.train_steps to go on, or use --mode=eval.",
        file=sys.stderr,
      )
    progress.begin()
    try:
      with stop.on_sigterm():
        if follow:
          evaluate_each(runner, follower)
        else:
          modes.train_or_evaluate(runner, mode)
    except (tf.errors.InvalidArgumentError, tf.errors.DataLossError) as error:
      if LABEL_ERROR in error.message and not is_missing(error.message):
        raise UserError(_label_message(error.message, params)) from error
      if _NO_NUMBER in error.message:
        raise UserError(_source_id_message(error.message)) from error
      explained = data_faults.explain(error, params.task, mode)
      if explained is None:
        raise
      raise explained from error
    finally:
      progress.close()
  if train and role.writes:
    report.print_results(model_dir, params)
  return progress.evaluation


def _batches(params: config_definitions.ExperimentConfig, mode: str) -> dict[str, int]:
  """Returns the global batch sizes that this mode uses."""
  data = {}
  if "train" in mode:
    data["task.train_data"] = params.task.train_data
  if "eval" in mode:
    data["task.validation_data"] = params.task.validation_data
  return {name: config.global_batch_size for name, config in data.items()}


class _Discard:
  """A text stream into nothing."""

  def write(self, text: str) -> int:
    return len(text)

  def isatty(self) -> bool:
    return False

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
