"""How training scales over the devices of one host: images/s on 1, 2, 4 of them."""

from __future__ import annotations

import dataclasses
import functools
import gc
import json
import pathlib
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import tensorflow as tf
import tf_keras
from official.core import config_definitions, task_factory, train_utils
from official.modeling import performance

from sasa_tf.benchmarks.scaling.cases import Case, configuration
from sasa_tf.errors import UserError
from sasa_tf.training import strategy
from sasa_tf.training.step.replica_step import ReplicaStep
from sasa_tf.training.trainer import Trainer


@dataclasses.dataclass(frozen=True)
class Result:
  """What was found.

  Attributes:
    case: what was measured.
    seconds: of a step, the mean of each round; empty where it failed.
    steps: in a round.
    compile_seconds: up to the end of the first steps.
    loss: after the last round, which a step that computes nothing would not have.
    gradient_bytes: that every replica hands to the all-reduce.
    efficiency: images/s beside `replicas` times those of a single one; None without that.
    error: why there are no seconds.
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
    """Of all replicas, at the median."""
    if not self.seconds:
      return None
    return self.case.replicas * self.case.batch_size / statistics.median(self.seconds)

  def to_json(self, **facts: Any) -> str:
    """Returns one line, with further facts in it."""
    speed = {"images_per_second": self.images_per_second}
    return json.dumps({**dataclasses.asdict(self), **speed, **facts})


class _ResidentInputs(Trainer):
  """Trains on one batch that lies on the devices, so that no input is waited for."""

  resident: Any = None

  def next_train_inputs(self, iterator: Any) -> Any:
    return self.resident


class _NoReduction(ReplicaStep):
  """Every replica trains on its own."""

  def _all_reduce(self, buffers: list[tf.Tensor]) -> list[tf.Tensor]:
    return buffers


def _resident_batch(
  distribution: tf.distribute.Strategy, params: config_definitions.ExperimentConfig
) -> Any:
  data, size = params.task.train_data, params.task.model.input_size
  batch = data.global_batch_size // distribution.num_replicas_in_sync

  def draw() -> tuple[tf.Tensor, tf.Tensor]:
    images = tf.random.stateless_normal([batch, *size], [1, 2], dtype=data.dtype)
    classes = params.task.model.num_classes
    # int64 as the train program has them on the way to the device, see Int32Transport.
    return images, tf.random.stateless_uniform([batch], [3, 4], 0, classes, tf.int64)

  return distribution.run(draw)


def _make_step(reduction: str, max_bucket_bytes: int | None) -> Callable[..., ReplicaStep]:
  step = _NoReduction if reduction == "none" else ReplicaStep
  return functools.partial(step, max_bucket_bytes=max_bucket_bytes)


def measure(
  case: Case,
  device_names: Sequence[str],
  *,
  steps: int,
  rounds: int,
  max_bucket_bytes: int | None = None,
) -> Result:
  """Trains for a while and returns what the steps took; a failure is a result too.

  Args:
    case: what to measure.
    device_names: of `scaling_cases.find_devices`; as many as the case has replicas are used.
    steps: of a round, which is one program: nothing is waited for between them.
    rounds: after the warm-up, which is one round too.
    max_bucket_bytes: of a buffer of gradients, see `ReplicaStep`.
  """
  params = configuration(case)
  performance.set_mixed_precision_policy(case.dtype)
  # The same weights and images everywhere: any number of replicas then gives the same loss.
  tf_keras.utils.set_random_seed(0)
  start = time.perf_counter()
  try:
    distribution = strategy.from_devices(device_names[: case.replicas])
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
        make_step=_make_step(case.reduction, max_bucket_bytes),
      )
    trainer.resident = _resident_batch(distribution, params)
    seconds, logs = [], {}
    for _ in range(rounds + 1):
      before = time.perf_counter()
      with distribution.scope():
        logs = trainer.train(tf.constant(steps))
      loss = float(logs["training_loss"])  # waits for the devices
      seconds.append((time.perf_counter() - before) / steps)
      if len(seconds) == 1:
        compile_seconds = time.perf_counter() - start
    return Result(
      case,
      tuple(seconds[1:]),
      steps,
      compile_seconds,
      loss,
      sum(w.shape.num_elements() * w.dtype.size for w in trainer.model.trainable_variables),
    )
  except Exception as error:  # a row that says why
    return Result(case, error=str(error) or type(error).__name__)
  finally:
    performance.set_mixed_precision_policy("float32")
    tf_keras.backend.clear_session()
    gc.collect()


def measure_all(
  cases: Iterable[Case],
  device_names: Sequence[str],
  *,
  steps: int,
  rounds: int,
  max_bucket_bytes: int | None = None,
  output: str | None = None,
  facts: dict[str, Any] | None = None,
) -> list[Result]:
  """Measures case by case and prints each result as it comes.

  Args:
    cases: those of one replica before the others of the same model.
    device_names: see `measure`.
    steps: see `measure`.
    rounds: see `measure`.
    max_bucket_bytes: see `measure`.
    output: file of JSON lines to add the results to, or None.
    facts: for every line of `output`.
  """
  results, single = [], {}
  print(_HEAD, flush=True)
  for case in cases:
    result = measure(
      case, device_names, steps=steps, rounds=rounds, max_bucket_bytes=max_bucket_bytes
    )
    speed = result.images_per_second
    if speed and case.replicas == 1:
      single[case.model] = speed
    if speed and case.model in single:
      result = dataclasses.replace(result, efficiency=speed / (case.replicas * single[case.model]))
    print(_row(result), flush=True)
    if output:
      _append(output, result.to_json(**(facts or {})))
    results.append(result)
  return results


_HEAD = (
  f"{'model':<21} {'replicas':>8} {'reduction':<9} {'ms a step':>10} {'images/s':>9} "
  f"{'a replica':>9} {'efficiency':>10} {'loss':>7}"
)


def _row(result: Result) -> str:
  case, speed = result.case, result.images_per_second
  start = f"{case.model:<21} {case.replicas:>8} {case.reduction:<9} "
  if not speed:
    return f"{start}failed: {result.error.strip().splitlines()[-1].strip()}"
  efficiency = f"{result.efficiency:.1%}" if result.efficiency else ""
  return (
    f"{start}{1000 * statistics.median(result.seconds):>10.2f} {speed:>9,.0f} "
    f"{speed / case.replicas:>9,.0f} {efficiency:>10} {result.loss:>7.3f}"
  )


def _append(path: str, line: str) -> None:
  try:
    with pathlib.Path(path).open("a") as file:
      file.write(line + "\n")
  except OSError as error:
    raise UserError(
      f"cannot write the results to {path!r}: {error.strerror}. Give --output another path."
    ) from error
