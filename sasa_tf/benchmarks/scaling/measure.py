"""Measures training throughput (images/s) on 1, 2, 4, ... devices of one host."""

from __future__ import annotations

import dataclasses
import functools
import gc
import itertools
import json
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import tensorflow as tf
import tf_keras
from official.core import config_definitions, task_factory, train_utils
from official.modeling import performance

from sasa_tf.benchmarks.scaling.cases import Case, configuration
from sasa_tf.outputs.json_lines import append_json_lines
from sasa_tf.reporting import Column, Table
from sasa_tf.training import strategy
from sasa_tf.training.step.replica_step import ReplicaStep
from sasa_tf.training.trainer import Trainer


@dataclasses.dataclass(frozen=True)
class Result:
  """The result of one case.

  Attributes:
    case: what was measured.
    seconds: mean time of a step in each round; empty if the case failed.
    steps: number of steps in a round.
    compile_seconds: time until the end of the first steps.
    loss: after the last round, as evidence that the step computes something.
    gradient_bytes: size of the gradients that each replica passes to the all-reduce.
    efficiency: images/s relative to `replicas` times those of a single replica; None without the
      latter.
    error: why there are no seconds, or None.
  """

  case: Case
  seconds: tuple[float, ...] = ()
  steps: int = 0
  compile_seconds: float | None = None
  loss: float | None = None
  gradient_bytes: int | None = None
  efficiency: float | None = None
  error: str | None = None

  @property
  def images_per_second(self) -> float | None:
    """Throughput of all replicas at the median time; None if the case failed."""
    if not self.seconds:
      return None
    return self.case.replicas * self.case.batch_size / statistics.median(self.seconds)

  def to_json(self, **metadata: Any) -> str:
    """Returns one line of JSON, which includes the metadata."""
    speed = {"images_per_second": self.images_per_second}
    return json.dumps({**dataclasses.asdict(self), **speed, **metadata})


# The first step creates the optimizer's variables, so that the second one is traced again.
_COMPILING_STEPS = 2


class _ResidentInputs(Trainer):
  """Trains on one batch that is already on the devices, so the input pipeline takes no time."""

  resident: Any = None

  def next_train_inputs(self, iterator: Any) -> Any:
    return self.resident


class _NoAllReduce(ReplicaStep):
  """Trains each replica independently, in the program that would reduce."""

  def _reduce_within(self, program: Any, gradients: list[tf.Tensor]) -> list[tf.Tensor]:
    return gradients


def _resident_batch(
  distribution: tf.distribute.Strategy, params: config_definitions.ExperimentConfig
) -> Any:
  data, size = params.task.train_data, params.task.model.input_size
  batch = data.global_batch_size // distribution.num_replicas_in_sync

  def draw() -> tuple[tf.Tensor, tf.Tensor]:
    images = tf.random.stateless_normal([batch, *size], [1, 2], dtype=data.dtype)
    classes = params.task.model.num_classes
    # int64 as in the train program, see `Int32Transport`.
    return images, tf.random.stateless_uniform([batch], [3, 4], 0, classes, tf.int64)

  return tf.function(lambda: distribution.run(draw))()


def _make_step(all_reduce: str, max_bucket_bytes: int | None) -> Callable[..., ReplicaStep]:
  step = _NoAllReduce if all_reduce == "none" else ReplicaStep
  return functools.partial(step, max_bucket_bytes=max_bucket_bytes)


def _make_trainer(
  case: Case,
  params: config_definitions.ExperimentConfig,
  distribution: tf.distribute.Strategy,
  max_bucket_bytes: int | None,
) -> _ResidentInputs:
  with distribution.scope():
    task = task_factory.get_task(params.task)
    trainer = _ResidentInputs(
      params,
      task,
      task.build_model(),
      train_utils.create_optimizer(task, params),
      evaluate=False,
      train_dataset=distribution.experimental_distribute_dataset(
        tf.data.Dataset.range(case.replicas).repeat().batch(case.replicas)
      ),
      make_step=_make_step(case.all_reduce, max_bucket_bytes),
      all_reduce="between_programs" if case.all_reduce == "between_programs" else "in_program",
    )
  trainer.resident = _resident_batch(distribution, params)
  return trainer


class _Run:
  """A case that is compiled at first, and then trained in rounds."""

  def __init__(
    self, case: Case, device_names: Sequence[str], steps: int, max_bucket_bytes: int | None
  ):
    self._case = case
    self._steps = steps
    self._seconds: list[float] = []
    self._error: str | None = None
    self._loss: float | None = None
    self._compile_seconds: float | None = None
    self._trainer: _ResidentInputs | None = None
    start = time.perf_counter()
    params = configuration(case)
    performance.set_mixed_precision_policy(case.dtype)
    # Equal weights and images on all replicas, so the loss does not depend on their number.
    tf_keras.utils.set_random_seed(0)
    try:
      self._distribution = strategy.from_devices(device_names[: case.replicas])
      self._trainer = _make_trainer(case, params, self._distribution, max_bucket_bytes)
      self._train(_COMPILING_STEPS)
    except Exception as error:
      self._fail(error)
    finally:
      performance.set_mixed_precision_policy("float32")
      tf_keras.backend.clear_session()
    self._compile_seconds = time.perf_counter() - start

  def run_round(self, measured: bool = True) -> None:
    """Trains for a round, unless the case has failed."""
    if self._error:
      return
    before = time.perf_counter()
    try:
      self._train(self._steps)
    except Exception as error:  # reported in the row of the case
      self._fail(error)
    if measured:
      self._seconds.append((time.perf_counter() - before) / self._steps)

  def _train(self, steps: int) -> None:
    with self._distribution.scope():
      logs = self._trainer.train(tf.constant(steps))
    self._loss = float(logs["training_loss"])  # waits for the devices

  def result(self) -> Result:
    """Returns the times of all rounds, or why the case failed."""
    if self._error:
      return Result(self._case, error=self._error)
    weights = self._trainer.model.trainable_variables
    gradient_bytes = sum(w.shape.num_elements() * w.dtype.size for w in weights)
    return Result(
      self._case,
      tuple(self._seconds),
      self._steps,
      self._compile_seconds,
      self._loss,
      gradient_bytes,
    )

  def _fail(self, error: Exception) -> None:
    self._error = str(error) or type(error).__name__


def measure_all(
  cases: Iterable[Case],
  device_names: Sequence[str],
  *,
  steps: int,
  rounds: int,
  max_bucket_bytes: int | None = None,
  output: str | None = None,
  metadata: dict[str, Any] | None = None,
) -> list[Result]:
  """Measures the cases and prints each result.

  The rounds of the cases of one model are interleaved, so that a device whose speed changes slows
  all of them down.

  Args:
    cases: those of one model one after the other.
    device_names: from `cases.find_devices`; each case uses its first `replicas` ones.
    steps: number of steps in a round. They are enqueued without waiting for each other.
    rounds: number of rounds after the warm-up, which is one round too.
    max_bucket_bytes: maximum size of a gradient bucket, see `ReplicaStep`.
    output: JSON-lines file to append the results to, or None.
    metadata: added to each line of `output`.
  """
  results = []
  print(_TABLE.header_line(), flush=True)
  for _, of_model in itertools.groupby(cases, key=lambda case: case.model):
    runs = [_Run(case, device_names, steps, max_bucket_bytes) for case in of_model]
    # `clear_session` of later cases empties TensorFlow's cache of functions that are ready to run.
    for run in runs:
      run.run_round(measured=False)
    for _ in range(rounds):
      for run in runs:
        run.run_round()
    measured = _with_efficiency([run.result() for run in runs])
    del runs, run
    gc.collect()
    for result in measured:
      print(_row(result), flush=True)
    if output:
      append_json_lines(output, [result.to_json(**(metadata or {})) for result in measured])
    results += measured
  return results


def _with_efficiency(results: Sequence[Result]) -> list[Result]:
  """Returns the results of one model with their efficiency, if a single replica was measured."""
  single = next((r.images_per_second for r in results if r.case.replicas == 1), None)
  if not single:
    return list(results)
  return [
    dataclasses.replace(result, efficiency=speed / (result.case.replicas * single))
    if (speed := result.images_per_second)
    else result
    for result in results
  ]


_TABLE = Table(
  [
    Column("model", "left", 20),
    Column("replicas"),
    Column("all-reduce", "left", 16),
    Column("ms per step"),
    Column("images/s", min_width=9),
    Column("per replica"),
    Column("efficiency"),
    Column("loss", min_width=7),
  ]
)


def _row(result: Result) -> str:
  case, speed = result.case, result.images_per_second
  cells = [case.model, str(case.replicas), case.all_reduce]
  if not speed:
    error = result.error.strip().splitlines()[-1].strip()
    return _TABLE.row_line(*cells, note=f"failed: {error}")
  return _TABLE.row_line(
    *cells,
    f"{1000 * statistics.median(result.seconds):.2f}",
    f"{speed:,.0f}",
    f"{speed / case.replicas:,.0f}",
    f"{result.efficiency:.1%}" if result.efficiency else "",
    f"{result.loss:.3f}",
  )
