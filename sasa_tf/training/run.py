"""One training or evaluation run of Model Garden's trainer."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from typing import NamedTuple

import tensorflow as tf
from official.core import base_task, config_definitions, task_factory, train_lib, train_utils
from official.modeling import performance
from official.vision.utils import summary_manager

import sasa_tf
from sasa_tf.compat.glob_free_paths import original_paths_in_errors
from sasa_tf.training import checks, input_files, model_labels, results, strategy
from sasa_tf.training.config_validation.experiment_check import check_experiment
from sasa_tf.training.creation import create_trainer, translate_step_errors
from sasa_tf.training.experiment import RUN_FILE
from sasa_tf.training.multi_worker import config_sync, process_role, worker_failure
from sasa_tf.training.multi_worker import strategy as multi_worker_strategy
from sasa_tf.training.multi_worker.cluster import Cluster, read_cluster
from sasa_tf.training.multi_worker.continuous_eval import CheckpointWatcher, evaluate_checkpoints
from sasa_tf.training.multi_worker.controller import MultiWorkerController
from sasa_tf.training.progress import TrainingProgress
from sasa_tf.training.resilience import checkpoints
from sasa_tf.training.resilience.controller import Controller
from sasa_tf.training.resilience.corrupt_records import skip_corrupt_records
from sasa_tf.training.resilience.data_errors import translate_data_errors
from sasa_tf.training.resilience.preemption import StopRequest
from sasa_tf.training.resilience.run_lock import run_lock
from sasa_tf.training.run_log import RunLog
from sasa_tf.training.step.all_reduce_mode import Processes
from sasa_tf.training.train_actions import TrainActionFactory, TrainingContext


class _Options(NamedTuple):
  """The options of `run_experiment`."""

  num_logical_cpus: int
  enable_async_checkpointing: bool
  on_nonfinite: str
  all_reduce: str
  max_corrupt_records: int
  force: bool
  train_actions: Sequence[TrainActionFactory]


class _Process(NamedTuple):
  """The part of a run that this process does.

  Attributes:
    role: mode, strategy and cluster of the process.
    model_dir: directory of the run.
    output_dir: directory that the process writes to: model_dir, or a temporary one.
    stop: stop request to the process.
    held: what the process holds until its end: the lock of model_dir.
  """

  role: process_role.Role
  model_dir: str
  output_dir: str
  stop: StopRequest
  held: contextlib.ExitStack

  @property
  def trains(self) -> bool:
    return "train" in self.role.mode

  @property
  def saves(self) -> bool:
    """Whether this process writes the checkpoints of the run."""
    return self.trains and self.role.writes_model_dir


def run_experiment(
  experiment: str,
  params: config_definitions.ExperimentConfig,
  *,
  mode: str,
  model_dir: str,
  num_logical_cpus: int = 0,
  enable_async_checkpointing: bool = True,
  on_nonfinite: str = "stop",
  all_reduce: str = "auto",
  max_corrupt_records: int = 0,
  force: bool = False,
  train_actions: Sequence[TrainActionFactory] = (),
) -> dict[str, float]:
  """Trains, evaluates or both, as `official.vision.train` does.

  Args:
    experiment: name of the experiment.
    params: configuration of the experiment.
    mode: Model Garden's mode, for example "train_and_eval".
    model_dir: directory for checkpoints, summaries and params.yaml.
    num_logical_cpus: number of replicas of a dry run on the CPU, or 0.
    enable_async_checkpointing: whether to write checkpoints asynchronously.
    on_nonfinite: "stop" or "skip", for steps with a non-finite loss or gradient.
    all_reduce: where several replicas reduce, one of `all_reduce_mode.MODES`.
    max_corrupt_records: maximum number of corrupt records of a dataset to skip; 0 for none.
    force: whether to take over the lock of a training on another host, see `run_lock`.
    train_actions: create additional actions, in the process that writes the checkpoints.

  Returns:
    The metrics of the last evaluation, {} without one.

  Raises:
    UserError: a problem that the user can fix, before or during the run.
    PreemptedError: SIGTERM ended the run, and its checkpoint is saved.
    WorkerLostError: another worker of the training, or a replica of this one, is lost.
  """
  options = _Options(
    num_logical_cpus,
    enable_async_checkpointing,
    on_nonfinite,
    all_reduce,
    max_corrupt_records,
    force,
    train_actions,
  )
  cluster = read_cluster(params.runtime.worker_hosts, params.runtime.task_index)
  role = process_role.resolve_role(params, mode, cluster)
  with (
    original_paths_in_errors(),
    worker_failure.translate_collective_errors(role.cluster),
    process_role.output_directory(model_dir, role.writes_model_dir, params) as output_dir,
    tempfile.TemporaryDirectory(prefix="sasa_tf_records_") as scratch,
    contextlib.ExitStack() as held,
  ):
    process = _Process(role, model_dir, output_dir, StopRequest(), held)
    return _run_process(experiment, params, process, scratch, options)


def _run_process(
  experiment: str,
  params: config_definitions.ExperimentConfig,
  process: _Process,
  scratch: str,
  options: _Options,
) -> dict[str, float]:
  mode = process.role.mode
  watcher = CheckpointWatcher(
    process.model_dir,
    timeout=params.trainer.continuous_eval_timeout,
    interrupted=lambda: process.stop.received,
  )
  init_checkpoint = _check_config(params, mode).init_checkpoint
  if mode == "continuous_eval":
    watcher.wait_for_first()
  distribution, params = _prepare(experiment, params, process, options)
  task_config = params.task.replace(init_checkpoint=init_checkpoint)
  task_config = skip_corrupt_records(
    task_config, mode, limit=options.max_corrupt_records, scratch=scratch
  )
  params = params.replace(task=input_files.with_literal_paths(task_config))
  with distribution.scope():
    task = task_factory.get_task(params.task, logging_dir=process.output_dir)
  progress = TrainingProgress(
    params.trainer.train_steps,
    lambda: int(runner.trainer.global_step.numpy()),
    batch_size=params.task.train_data.global_batch_size,
    stream=None if process.role.writes_model_dir else _NullStream(),
  )
  log = RunLog(process.model_dir if process.saves else None, progress.current_step)
  # `progress` replaces what Orbit prints.
  with contextlib.redirect_stdout(_NullStream()):
    runner = _create_runner(distribution, params, task, process, (progress, log), options)
    if process.saves:
      _report_if_finished(progress.current_step(), params.trainer.train_steps, process.model_dir)
      _add_train_actions(runner, task, options.train_actions)
    progress.begin()
    log.begin(
      train_steps=params.trainer.train_steps,
      batch_size=params.task.train_data.global_batch_size,
      parameters=sum(w.shape.num_elements() for w in runner.trainer.model.trainable_variables),
    )
    try:
      with (
        process.stop.on_sigterm(),
        translate_data_errors(params.task, mode),
        translate_step_errors(params),
      ):
        if mode == "continuous_eval":
          evaluate_checkpoints(runner, watcher)
        else:
          train_or_evaluate(runner, mode)
          if process.saves and mode == "train_and_eval" and not log.is_evaluated():
            # An earlier process was ended between the last step and its evaluation.
            train_or_evaluate(runner, "eval")
    finally:
      progress.close()
  if process.saves:
    log.end()
    results.print_summary(process.model_dir, params)
  return progress.evaluation


def _check_config(
  params: config_definitions.ExperimentConfig, mode: str
) -> config_definitions.TaskConfig:
  """Returns the task with the checkpoint of `init_checkpoint`.

  Raises:
    UserError: the data or the configuration is invalid.
  """
  check_experiment(params, mode)
  if "train" in mode:
    checks.check_data("task.train_data", params.task.train_data)
  if "eval" in mode:
    checks.check_data("task.validation_data", params.task.validation_data)
    checks.check_annotations(params.task)
  checks.check_precision(params)
  if "train" in mode:
    return checks.resolve_init_checkpoint(params.task)
  return params.task


def _prepare(
  experiment: str,
  params: config_definitions.ExperimentConfig,
  process: _Process,
  options: _Options,
) -> tuple[tf.distribute.Strategy, config_definitions.ExperimentConfig]:
  """Prepares model_dir and TensorFlow; returns the strategy and the configuration to run."""
  role = process.role
  checks.check_model_dir(process.model_dir, params, train=process.trains, write=process.saves)
  if process.saves:
    process.held.enter_context(run_lock(process.model_dir, force=options.force))
  distribution = _build_strategy(params.runtime, role, options.num_logical_cpus)
  topology = strategy.describe_topology(distribution, _batch_sizes(params, role.mode))
  if role.writes_model_dir:
    print(topology, flush=True)
  user_params = params
  if role.cluster is not None:
    flags = {"--all_reduce": options.all_reduce, "--on_nonfinite": options.on_nonfinite}
    params = config_sync.sync_experiment(
      distribution, role.cluster, experiment, params, role.mode, flags
    )
  if process.saves:
    _initialize_model_dir(process.model_dir, experiment, user_params)
  if params.runtime.mixed_precision_dtype:
    performance.set_mixed_precision_policy(params.runtime.mixed_precision_dtype)
  return distribution, params


def _build_strategy(
  runtime: config_definitions.RuntimeConfig, role: process_role.Role, num_logical_cpus: int
) -> tf.distribute.Strategy:
  if role.cluster is not None:
    return multi_worker_strategy.build_strategy(role.cluster, runtime, num_logical_cpus)
  runtime = runtime.replace(distribution_strategy=role.distribution_strategy)
  return strategy.build_strategy(runtime, num_logical_cpus)


def _batch_sizes(params: config_definitions.ExperimentConfig, mode: str) -> dict[str, int]:
  """Returns the global batch sizes of the datasets that this mode reads."""
  data = {}
  if "train" in mode:
    data["task.train_data"] = params.task.train_data
  if "eval" in mode:
    data["task.validation_data"] = params.task.validation_data
  return {name: config.global_batch_size for name, config in data.items()}


def _initialize_model_dir(
  model_dir: str, experiment: str, params: config_definitions.ExperimentConfig
) -> None:
  """Repairs what an interrupted run left there, and writes the configuration of this run."""
  checkpoints.repair(model_dir)
  if params.trainer.best_checkpoint_export_subdir:
    checkpoints.repair_best(
      os.path.join(model_dir, params.trainer.best_checkpoint_export_subdir),
      params.trainer.best_checkpoint_eval_metric,
    )
  if params.trainer.optimizer_config.ema:
    checkpoints.forget_others(os.path.join(model_dir, results.EMA_DIRECTORY))
  train_utils.serialize_config(params, model_dir)
  model_labels.copy(params.task.train_data, model_dir)
  with tf.io.gfile.GFile(os.path.join(model_dir, RUN_FILE), "w") as file:
    json.dump({"experiment": experiment, "sasa_tf": sasa_tf.__version__}, file)


def _create_runner(
  distribution: tf.distribute.Strategy,
  params: config_definitions.ExperimentConfig,
  task: base_task.Task,
  process: _Process,
  actions: tuple[TrainingProgress, RunLog],
  options: _Options,
) -> train_lib.OrbitExperimentRunner:
  mode, cluster = process.role.mode, process.role.cluster
  with distribution.scope():
    trainer = create_trainer(
      params,
      task,
      train=process.trains,
      evaluate="eval" in mode,
      checkpoint_exporter=train_lib.maybe_create_best_ckpt_exporter(params, process.output_dir),
      on_nonfinite=options.on_nonfinite,
      all_reduce=options.all_reduce,
      processes=_processes(distribution, cluster),
    )
  return train_lib.OrbitExperimentRunner(
    distribution_strategy=distribution,
    task=task,
    mode=mode,
    params=params,
    model_dir=process.output_dir,
    trainer=trainer,
    train_actions=[action.on_train for action in actions],
    eval_actions=[action.on_evaluate for action in actions],
    controller_cls=_controller_class(process),
    eval_summary_manager=summary_manager.maybe_build_eval_summary_manager(
      params=params, model_dir=process.output_dir
    ),
    # With several workers, the saving thread would run collectives concurrently with the training.
    enable_async_checkpointing=options.enable_async_checkpointing and cluster is None,
  )


def _processes(distribution: tf.distribute.Strategy, cluster: Cluster | None) -> Processes | None:
  if cluster is None or cluster.is_evaluator:
    return None
  addresses = cluster.addresses

  def gather(text: str) -> list[str]:
    return config_sync.all_gather_strings(distribution, text, len(addresses))

  return Processes(
    addresses.index(cluster.address),
    gather,
    functools.partial(worker_failure.find_lost_worker, cluster),
    functools.partial(worker_failure.find_silent_worker, cluster),
  )


def _add_train_actions(
  runner: train_lib.OrbitExperimentRunner,
  task: base_task.Task,
  factories: Sequence[TrainActionFactory],
) -> None:
  context = TrainingContext(
    params=runner.params,
    task=task,
    model=runner.trainer.model,
    strategy=runner.strategy,
    current_step=lambda: int(runner.trainer.global_step.numpy()),
    summary_writer=runner.controller.summary_manager.summary_writer(),
  )
  runner.controller.train_actions += tuple(create(context) for create in factories)


def _controller_class(process: _Process) -> Callable[..., Controller]:
  cluster = process.role.cluster
  if cluster is None:
    return functools.partial(Controller, stop=process.stop)
  return functools.partial(
    MultiWorkerController, cluster=cluster, model_dir=process.model_dir, stop=process.stop
  )


def train_or_evaluate(runner: train_lib.OrbitExperimentRunner, mode: str) -> None:
  """Runs the mode like `runner.run`, which also traces the model again to log its FLOPs.

  Args:
    runner: runner of the run.
    mode: Model Garden's mode.
  """
  trainer, controller = runner.params.trainer, runner.controller
  with runner.strategy.scope():
    if mode == "train":
      controller.train(steps=trainer.train_steps)
    elif mode == "train_and_eval":
      controller.train_and_evaluate(
        train_steps=trainer.train_steps,
        eval_steps=trainer.validation_steps,
        eval_interval=trainer.validation_interval,
      )
    elif mode == "eval":
      controller.evaluate(steps=trainer.validation_steps)
    else:
      runner.run()


def _report_if_finished(step: int, train_steps: int, model_dir: str) -> None:
  if step >= train_steps:
    print(
      f"{model_dir} already holds step {step} of {train_steps}: nothing to train. Raise "
      "trainer.train_steps to continue, or use --mode=eval.",
      file=sys.stderr,
    )


class _NullStream:
  """A text stream that discards its input."""

  def write(self, text: str) -> int:
    return len(text)

  def isatty(self) -> bool:
    return False

  def flush(self) -> None:
    pass
