"""Whether the input pipeline or the training step bounds a run."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf
from official.core import config_definitions, task_factory, train_utils
from official.modeling import performance

from sasa_tf.training import checks, strategy
from sasa_tf.training.trainer import Trainer

# By how much one of the two must be faster for it to be said that the other bounds the run.
_CLEARLY = 1.1


class Throughput(NamedTuple):
  """Images in a second, over all replicas.

  Attributes:
    input_alone: of the input pipeline, whose batches nobody uses.
    step_alone: of the training step, on one batch again and again.
    together: of the training; 0 if it was not measured.
  """

  input_alone: float
  step_alone: float
  together: float = 0.0

  @property
  def verdict(self) -> str:
    """One sentence on what bounds the run."""
    ratio = self.input_alone / self.step_alone
    if ratio < 1 / _CLEARLY:
      return f"the input bounds the run: the step could take {1 / ratio:.2f} times as many images."
    if ratio > _CLEARLY:
      return f"the step bounds the run: the input could give {ratio:.2f} times as many images."
    return "input and step are about as fast: either bounds the run."

  def __str__(self) -> str:
    lines = [
      f"input pipeline alone  {self.input_alone:10,.1f} images/s",
      f"training step alone   {self.step_alone:10,.1f} images/s",
    ]
    if self.together:
      lines.append(f"training              {self.together:10,.1f} images/s")
    return "\n".join([*lines, self.verdict])


def measure_input(
  params: config_definitions.ExperimentConfig, *, seconds: float, warmup_batches: int = 5
) -> float:
  """Returns the images that the training's input pipeline gives in a second, without a model.

  Args:
    params: of the experiment.
    seconds: for which to measure, at least.
    warmup_batches: not counted; the buffer of shuffling is full before the first one.
  """
  checks.check_data("task.train_data", params.task.train_data)
  dataset = task_factory.get_task(params.task).build_inputs(params.task.train_data)
  batches = iter(dataset)
  for _ in range(warmup_batches):
    next(batches)
  batch_size = params.task.train_data.global_batch_size
  return batch_size * _rate(lambda: next(batches), seconds)


def measure(
  params: config_definitions.ExperimentConfig,
  *,
  seconds: float,
  steps_per_loop: int,
) -> Throughput:
  """Measures an experiment's input pipeline and its training step, alone and together.

  Args:
    params: of the experiment.
    seconds: for which to measure each, at least.
    steps_per_loop: of the training step, run between two looks at the clock.

  Raises:
    UserError: something that the user can mend.
  """
  input_alone = measure_input(params, seconds=seconds)
  distribution = strategy.build_strategy(params.runtime)
  if params.runtime.mixed_precision_dtype:
    performance.set_mixed_precision_policy(params.runtime.mixed_precision_dtype)
  with distribution.scope():
    task = task_factory.get_task(params.task)
    trainer = train_utils.create_trainer(
      params, task, train=True, evaluate=False, trainer_cls=Trainer
    )
  batch_size = params.task.train_data.global_batch_size
  steps = tf.constant(steps_per_loop)

  def rate():
    with distribution.scope():
      trainer.train(steps)  # traces, compiles, fills buffers
      return batch_size * steps_per_loop * _rate(lambda: trainer.train(steps), seconds)

  together = rate()
  trainer.train_dataset = _one_batch_for_ever(distribution, trainer.train_dataset)
  return Throughput(input_alone, rate(), together)


def _one_batch_for_ever(
  distribution: tf.distribute.Strategy, dataset: tf.distribute.DistributedDataset
) -> tf.distribute.DistributedDataset:
  batch = next(iter(dataset))
  local = tf.nest.map_structure(
    lambda value: distribution.experimental_local_results(value)[0], batch
  )
  return distribution.distribute_datasets_from_function(
    lambda context: tf.data.Dataset.from_tensors(local).repeat()
  )


def _rate(function: Callable[[], object], seconds: float) -> float:
  """Returns calls in a second."""
  calls, start = 0, time.perf_counter()
  while (elapsed := time.perf_counter() - start) < seconds or not calls:
    function()
    calls += 1
  return calls / elapsed
