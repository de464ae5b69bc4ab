"""Throughput of the input pipeline and of the training step, which shows the bottleneck."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf
from official.core import config_definitions, task_factory
from official.modeling import performance

from sasa_tf.training import checks, input_files, strategy
from sasa_tf.training.config_validation.experiment_check import check_experiment
from sasa_tf.training.creation import create_trainer, translate_step_errors
from sasa_tf.training.resilience.data_errors import translate_data_errors

# Ratio of the two throughputs above which one of them is called the bottleneck.
_CLEAR_RATIO = 1.1


class InputSpeed(NamedTuple):
  """Speed of the input pipeline without a model.

  Attributes:
    images_per_second: over all replicas.
    cpu_seconds: CPU time of this process for an image, on all cores together.
  """

  images_per_second: float
  cpu_seconds: float

  def __str__(self) -> str:
    return (
      f"input pipeline alone  {self.images_per_second:10,.1f} images/s, "
      f"{1e6 * self.cpu_seconds:,.0f} microseconds of CPU time for an image"
    )


class Throughput(NamedTuple):
  """Images per second, over all replicas.

  Attributes:
    input_alone: of the input pipeline without a model.
    step_alone: of the training step on one repeated batch.
    together: of training; 0 if it was not measured.
  """

  input_alone: InputSpeed
  step_alone: float
  together: float = 0.0

  @property
  def verdict(self) -> str:
    """A sentence that names the bottleneck."""
    ratio = self.input_alone.images_per_second / self.step_alone
    if ratio < 1 / _CLEAR_RATIO:
      return (
        "the input pipeline is the bottleneck: the training step could process "
        f"{1 / ratio:.2f} times as many images."
      )
    if ratio > _CLEAR_RATIO:
      return (
        "the training step is the bottleneck: the input pipeline could supply "
        f"{ratio:.2f} times as many images."
      )
    return "the input pipeline and the training step are about equally fast."

  def __str__(self) -> str:
    lines = [
      str(self.input_alone),
      f"training step alone   {self.step_alone:10,.1f} images/s",
    ]
    if self.together:
      lines.append(f"training              {self.together:10,.1f} images/s")
    return "\n".join([*lines, self.verdict])


def measure_input(
  params: config_definitions.ExperimentConfig, *, seconds: float, warmup_batches: int = 5
) -> InputSpeed:
  """Returns the speed of the training input pipeline, without a model.

  Args:
    params: of the experiment.
    seconds: minimum duration of the measurement.
    warmup_batches: batches before the measurement; the shuffle buffer is full before the first one.

  Raises:
    UserError: the configuration is invalid, or the data is missing or of another task.
  """
  check_experiment(params, "train")
  checks.check_data("task.train_data", params.task.train_data)
  task = input_files.with_literal_paths(params.task)
  # Model Garden reads from a tf.data service only with a context.
  dataset = task_factory.get_task(task).build_inputs(task.train_data, tf.distribute.InputContext())
  batches = iter(dataset)
  batch_size = params.task.train_data.global_batch_size
  with translate_data_errors(params.task, "train"):
    for _ in range(warmup_batches):
      next(batches)
    cpu, start = time.process_time(), time.perf_counter()
    rate = batch_size * _calls_per_second(lambda: next(batches), seconds)
    images = rate * (time.perf_counter() - start)
    return InputSpeed(rate, (time.process_time() - cpu) / images)


def measure(
  params: config_definitions.ExperimentConfig,
  *,
  seconds: float,
  steps_per_loop: int,
) -> Throughput:
  """Measures an experiment's input pipeline and training step, separately and together.

  Args:
    params: of the experiment.
    seconds: minimum duration of each measurement.
    steps_per_loop: training steps between two readings of the clock.

  Raises:
    UserError: the configuration is invalid or the data is missing.
  """
  input_alone = measure_input(params, seconds=seconds)
  params = params.replace(task=input_files.with_literal_paths(params.task))
  distribution = strategy.build_strategy(params.runtime)
  if params.runtime.mixed_precision_dtype:
    performance.set_mixed_precision_policy(params.runtime.mixed_precision_dtype)
  with distribution.scope():
    task = task_factory.get_task(params.task)
    trainer = create_trainer(params, task, train=True, evaluate=False)
  batch_size = params.task.train_data.global_batch_size
  steps = tf.constant(steps_per_loop)

  def images_per_second() -> float:
    with distribution.scope():
      trainer.train(steps)  # traces, compiles, fills buffers
      loops_per_second = _calls_per_second(lambda: trainer.train(steps), seconds)
    return batch_size * steps_per_loop * loops_per_second

  with translate_data_errors(params.task, "train"), translate_step_errors(params):
    together = images_per_second()
    trainer.train_dataset = _repeated_batch(distribution, trainer.train_dataset)
    return Throughput(input_alone, images_per_second(), together)


def _repeated_batch(
  distribution: tf.distribute.Strategy, dataset: tf.distribute.DistributedDataset
) -> tf.distribute.DistributedDataset:
  """Returns a dataset that repeats the first batch."""
  batch = next(iter(dataset))
  local = tf.nest.map_structure(
    lambda value: distribution.experimental_local_results(value)[0], batch
  )
  return distribution.distribute_datasets_from_function(
    lambda context: tf.data.Dataset.from_tensors(local).repeat()
  )


def _calls_per_second(function: Callable[[], object], seconds: float) -> float:
  calls, start = 0, time.perf_counter()
  while (elapsed := time.perf_counter() - start) < seconds or not calls:
    function()
    calls += 1
  return calls / elapsed
