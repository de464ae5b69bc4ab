"""Measurements, and the JSON-lines files that store them."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from typing import Any

from sasa_tf.benchmarks.measurement.environment import check_types
from sasa_tf.benchmarks.measurement.timing import Summary
from sasa_tf.benchmarks.workloads.cases import Case
from sasa_tf.errors import UserError
from sasa_tf.outputs.json_lines import append_json_lines, read_lines
from sasa_tf.outputs.json_types import Finite, Positive


@dataclasses.dataclass(frozen=True)
class Measurement:
  """The results of one case.

  Attributes:
    case: what was measured.
    seconds: time of a step in each run; empty if the candidate failed.
    steps: number of steps in each run.
    compile_seconds: time to build and compile the program and to run it once.
    overhead_seconds: overhead of the loop per step, included in `seconds`; None if unknown.
    peak_bytes: peak memory of a step; None if it was not measured.
    parameters: number of trainable parameters of a layer or model.
    required_bytes: bytes that any implementation must move.
    error: why there are no seconds or no peak, or None.
    environment: from `describe_environment`.
    command: the command line that measured it.
  """

  case: Case
  seconds: tuple[Positive, ...] = ()
  steps: int = 0
  compile_seconds: Finite | None = None
  overhead_seconds: Finite | None = None
  peak_bytes: int | None = None
  parameters: int | None = None
  required_bytes: int | None = None
  error: str | None = None
  environment: dict[str, Any] = dataclasses.field(default_factory=dict)
  command: str = ""

  @property
  def summary(self) -> Summary | None:
    """Median and quartiles; None if the candidate failed."""
    return Summary.of(self.seconds) if self.seconds else None

  @property
  def images_per_second(self) -> float | None:
    """Throughput at the median time; None if the candidate failed."""
    return self.case.batch_size / self.summary.median if self.seconds else None

  def to_json(self) -> str:
    """Returns one line, which includes median and quartiles for other programs."""
    values = dataclasses.asdict(self)
    summary = self.summary._asdict() if self.seconds else None
    return json.dumps({"case": values.pop("case"), "summary": summary, **values})

  @classmethod
  def from_json(cls, line: str) -> Measurement:
    """Returns the measurement of a line from `to_json`."""
    values = json.loads(line)
    del values["summary"]
    values["seconds"] = tuple(values["seconds"])
    measurement = cls(**values | {"case": Case.from_dict(values["case"])})
    check_types(measurement)
    return measurement


def append(path: str, measurements: Iterable[Measurement]) -> None:
  """Appends lines to a file; creates the file and its directory if they do not exist.

  Raises:
    UserError: the file cannot be written, or is not a result file.
  """
  append_json_lines(path, (measurement.to_json() for measurement in measurements))


def read(path: str) -> list[Measurement]:
  """Returns the measurements of a file; of several with the same case, the last one.

  Raises:
    UserError: the file cannot be read, or a line is not a measurement.
  """
  try:
    lines = read_lines(path)
  except OSError as error:
    raise UserError(
      f"cannot read the results {path!r}: {error.strerror}. Measure them with --output={path}."
    ) from error
  found = {}
  for number, line in enumerate(lines, start=1):
    try:
      measurement = Measurement.from_json(line)
    except (AttributeError, ValueError, TypeError, KeyError, RecursionError) as error:
      raise UserError(
        f"{path}, line {number}: expected a measurement as written by --output; received "
        f"{line[:60]!r} ({type(error).__name__}: {error})."
      ) from error
    found[measurement.case] = measurement
  if not found:
    raise UserError(f"{path} contains no measurement. Measure some with --output={path}.")
  return list(found.values())


def group(measurements: Iterable[Measurement]) -> list[list[Measurement]]:
  """Returns the measurements grouped by setting, in order of first appearance."""
  groups: dict[Case, list[Measurement]] = {}
  for measurement in measurements:
    groups.setdefault(measurement.case.group, []).append(measurement)
  return list(groups.values())
