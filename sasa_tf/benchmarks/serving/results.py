"""The results of a served model, and their lines in result files."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from typing import Any, Literal, TypedDict

from sasa_tf.benchmarks.measurement.environment import check_types
from sasa_tf.errors import UserError
from sasa_tf.outputs.json_lines import append_json_lines, read_lines
from sasa_tf.outputs.json_types import Finite, Positive

TARGET = "serving"


@dataclasses.dataclass(frozen=True)
class ServedCase:
  """An exported model with one setting.

  Attributes:
    candidate: network, or directory of the export.
    served: name of the format.
    device: "cpu" or "gpu".
    batch_size: B.
    num_threads: of an operation on the CPU.
    network: depth, image size and so on as text; "" for given exports.
    target: `TARGET`.
  """

  candidate: str
  served: str
  device: Literal["cpu", "gpu"]
  batch_size: int
  num_threads: int
  network: str = ""
  target: str = TARGET


class Latency(TypedDict):
  """Percentiles in seconds."""

  p50: Positive
  p90: Positive
  p99: Positive


@dataclasses.dataclass(frozen=True)
class ServedResult:
  """What was measured.

  Attributes:
    case: the model and its setting.
    runtime: name and version.
    seconds: median time of a call in each round; empty if the model could not be called with this
      batch size.
    latency: {"p50", "p90", "p99"} of all calls in seconds; None without calls.
    calls: their number.
    baseline: candidate that the speed is relative to.
    speed: median over the rounds of the baseline's time over the model's; None without calls.
    loop_seconds: time of a call within a loop on the GPU, without the host, in each round; empty if
      the signature is not one XLA program.
    loop_speed: as `speed`, of these times.
    difference: largest difference of the outputs to those before the export (for given exports, to
      the SavedModel), relative to the largest logit; of detectors, of the scores. None if unknown.
    num_bytes: size of the file or directory; None if it was not exported.
    load_seconds: time to load the model in a fresh process; None if it was not measured.
    first_call_seconds: time of the first call, of one image.
    peak_bytes: memory that the model, and a call with `peak_batch` images, take beyond the runtime.
    peak_batch: batch size of `peak_bytes`.
    error: why something is missing, or None.
    environment: from `describe_environment`.
    command: the command line that measured it.
  """

  case: ServedCase
  runtime: str = ""
  seconds: tuple[Finite, ...] = ()
  latency: Latency | None = None
  calls: int = 0
  baseline: str = ""
  speed: Finite | None = None
  loop_seconds: tuple[Finite, ...] = ()
  loop_speed: Finite | None = None
  difference: float | None = None
  num_bytes: int | None = None
  load_seconds: Finite | None = None
  first_call_seconds: Finite | None = None
  peak_bytes: int | None = None
  peak_batch: int | None = None
  error: str | None = None
  environment: dict[str, Any] = dataclasses.field(default_factory=dict)
  command: str = ""

  @property
  def images_per_second(self) -> float | None:
    """Throughput at the median latency; None without calls."""
    return self.case.batch_size / self.latency["p50"] if self.latency else None

  def to_json(self) -> str:
    """Returns one line."""
    values = dataclasses.asdict(self)
    return json.dumps(
      {"case": values.pop("case"), "images_per_second": self.images_per_second, **values}
    )

  @classmethod
  def from_json(cls, line: str) -> ServedResult:
    """Returns the result of a line from `to_json`."""
    values = json.loads(line)
    del values["images_per_second"]
    for name in ("seconds", "loop_seconds"):
      values[name] = tuple(values.get(name, ()))
    result = cls(**values | {"case": ServedCase(**values["case"])})
    check_types(result)
    return result


def append(path: str, results: Iterable[ServedResult]) -> None:
  """Appends lines to a file; creates the file and its directory if they do not exist.

  Raises:
    UserError: the file cannot be written, or is not a result file.
  """
  append_json_lines(path, (result.to_json() for result in results))


def holds_served_results(path: str) -> bool:
  """Returns whether the first line of a file is a result of this target."""
  try:
    return json.loads(read_lines(path)[0])["case"]["target"] == TARGET
  except (OSError, RecursionError, ValueError, LookupError, TypeError):
    return False


def read(path: str) -> list[ServedResult]:
  """Returns the results of a file; of several with the same case, the last one.

  Raises:
    UserError: a line is not a result of this target.
  """
  found = {}
  for number, line in enumerate(read_lines(path), start=1):
    try:
      result = ServedResult.from_json(line)
    except (AttributeError, RecursionError, ValueError, TypeError, LookupError) as error:
      raise UserError(
        f"{path}, line {number}: expected a result of --target=serving; received {line[:60]!r} "
        f"({type(error).__name__}: {error}). Use a file for each target."
      ) from error
    found[result.case] = result
  return list(found.values())
