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
from sasa_tf.training import checks, modes, results, strategy
from sasa_tf.training.experiment import RUN_FILE
from sasa_tf.training.multi_worker import process_role, setup
from sasa_tf.training.multi_worker.cluster import Cluster, read_cluster
from sasa_tf.training.multi_worker.continuous_eval import CheckpointWatcher, evaluate_checkpoints
from sasa_tf.training.multi_worker.controller import MultiWorkerController
from sasa_tf.training.multi_worker.worker_failure import translate_collective_errors
from sasa_tf.training.progress import TrainingProgress
from sasa_tf.training.resilience import checkpoints, corrupt_records, data_errors
from sasa_tf.training.resilience.controller import Controller
from sasa_tf.training.resilience.preemption import StopRequest
from sasa_tf.training.trainer import Trainer


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
    WorkerLostError: another process of the training is gone.
  """
  runtime = params.runtime
  cluster = read_cluster(runtime.worker_hosts, runtime.task_index)
  role = process_role.resolve_role(params, mode, cluster)
  with (
    translate_collective_errors(role.cluster),
    setup.output_directory(model_dir, role.writes, params) as output_dir,
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
      functools.partial(corrupt_records.leave_out, limit=max_corrupt_records, scratch=scratch),
    )


def _run_role(
  experiment: str,
  params: config_definitions.ExperimentConfig,
  role: process_role.Role,
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
  saves = train and role.writes
  stop = StopRequest()
  follower = CheckpointWatcher(
    model_dir,
    timeout=params.trainer.continuous_eval_timeout,
    interrupted=lambda: stop.received,
  )
  _check(params, mode)
  if follow:
    follower.wait_for_first()
  checks.check_model_dir(model_dir, params, train=train, write=saves)
  distribution = _build_strategy(params.runtime, role, num_logical_cpus)
  topology = strategy.describe_topology(distribution, _batches(params, mode))
  if role.writes:
    print(topology, flush=True)
  as_given = params
  if cluster is not None:
    params = setup.sync_experiment(distribution, cluster, experiment, params, mode)
  if saves:
    _begin_model_dir(model_dir, experiment, as_given)
  if params.runtime.mixed_precision_dtype:
    performance.set_mixed_precision_policy(params.runtime.mixed_precision_dtype)
  params = params.replace(task=leave_out_corrupt(params.task, mode))
  with distribution.scope():
    task = task_factory.get_task(params.task, logging_dir=output_dir)

  progress = TrainingProgress(
    params.trainer.train_steps,
    lambda: int(trainer.global_step.numpy()),
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
      controller_cls=_controller_class(cluster, model_dir, stop),
      eval_summary_manager=summary_manager.maybe_build_eval_summary_manager(
        params=params, model_dir=output_dir
      ),
      # A thread that writes must not meet the other processes beside the one that trains.
      enable_async_checkpointing=enable_async_checkpointing and cluster is None,
    )
    if saves:
      _say_if_done(int(trainer.global_step.numpy()), params.trainer.train_steps, model_dir)
    progress.begin()
    try:
      with stop.on_sigterm(), data_errors.explained(params.task, mode):
        if follow:
          evaluate_checkpoints(runner, follower)
        else:
          modes.train_or_evaluate(runner, mode)
    finally:
      progress.close()
  if saves:
    results.print_results(model_dir, params)
  return progress.evaluation


def _check(params: config_definitions.ExperimentConfig, mode: str) -> None:
  """Raises a `UserError` if the data or the configuration cannot do."""
  if "train" in mode:
    checks.check_data("task.train_data", params.task.train_data)
  if "eval" in mode:
    checks.check_data("task.validation_data", params.task.validation_data)
  checks.check_precision(params)
  if "train" in mode:
    checks.check_init_checkpoint(params.task)


def _build_strategy(
  runtime: config_definitions.RuntimeConfig, role: process_role.Role, num_logical_cpus: int
) -> tf.distribute.Strategy:
  if role.cluster is not None:
    return setup.build_strategy(role.cluster, runtime, num_logical_cpus)
  runtime = runtime.replace(distribution_strategy=role.distribution_strategy)
  return strategy.build_strategy(runtime, num_logical_cpus)


def _begin_model_dir(
  model_dir: str, experiment: str, params: config_definitions.ExperimentConfig
) -> None:
  """Mends what an earlier run left unfinished there, and writes down what this one is."""
  checkpoints.repair(model_dir)
  if params.trainer.best_checkpoint_export_subdir:
    checkpoints.repair_best(os.path.join(model_dir, params.trainer.best_checkpoint_export_subdir))
  train_utils.serialize_config(params, model_dir)
  with tf.io.gfile.GFile(os.path.join(model_dir, RUN_FILE), "w") as file:
    json.dump({"experiment": experiment, "sasa_tf": sasa_tf.__version__}, file)


def _controller_class(
  cluster: Cluster | None, model_dir: str, stop: StopRequest
) -> Callable[..., Controller]:
  if cluster is None:
    return functools.partial(Controller, stop=stop)
  return functools.partial(MultiWorkerController, cluster=cluster, model_dir=model_dir, stop=stop)


def _say_if_done(step: int, train_steps: int, model_dir: str) -> None:
  if step >= train_steps:
    print(
      f"{model_dir} already holds step {step} of {train_steps}: nothing left to train. Raise "
      "trainer.train_steps to go on, or use --mode=eval.",
      file=sys.stderr,
    )


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
