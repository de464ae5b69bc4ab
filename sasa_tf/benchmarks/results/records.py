"""Measurements, and the files of JSON lines that keep them."""

from __future__ import annotations

import dataclasses
import json
import pathlib
from collections.abc import Iterable
from typing import Any

from sasa_tf.benchmarks.measurement.summary import Summary
from sasa_tf.benchmarks.workloads.cases import Case
from sasa_tf.errors import UserError


@dataclasses.dataclass(frozen=True)
class Measurement:
  """What was found about one case.

  Attributes:
    case: what was measured.
    seconds: of a step, the mean of each run; empty where it failed.
    steps: in each run.
    compile_seconds: from building the program to the end of its first turn.
    overhead_seconds: that the loop itself takes for each step, contained in `seconds`; or None.
    peak_bytes: of a step; None where it was not measured.
    parameters: trainable ones, of a layer or model.
    required_bytes: that any implementation must move.
    error: why there are no seconds, or no peak; else None.
    environment: of `describe_environment`.
    command: that measured it.
  """

  case: Case
  seconds: tuple[float, ...] = ()
  steps: int = 0
  compile_seconds: float | None = None
  overhead_seconds: float | None = None
  peak_bytes: int | None = None
  parameters: int | None = None
  required_bytes: int | None = None
  error: str | None = None
  environment: dict[str, Any] = dataclasses.field(default_factory=dict)
  command: str = ""

  @property
  def summary(self) -> Summary | None:
    """Median and quartiles, None where it failed."""
    return Summary.of(self.seconds) if self.seconds else None

  @property
  def images_per_second(self) -> float | None:
    """At the median."""
    return self.case.batch_size / self.summary.median if self.seconds else None

  def to_json(self) -> str:
    """Returns one line; median and quartiles are in it for other readers."""
    values = dataclasses.asdict(self)
    summary = self.summary._asdict() if self.seconds else None
    return json.dumps({"case": values.pop("case"), "summary": summary, **values})

  @classmethod
  def from_json(cls, line: str) -> Measurement:
    """Undoes `to_json`."""
    values = json.loads(line)
    del values["summary"]
    values["seconds"] = tuple(values["seconds"])
    return cls(**values | {"case": Case.from_dict(values["case"])})


def append(path: str, measurements: Iterable[Measurement]) -> None:
  """Adds lines to a file, made where missing, and its directory too.

  Raises:
    UserError: it cannot be written.
  """
  file = pathlib.Path(path)
  try:
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a") as lines:
      lines.writelines(measurement.to_json() + "\n" for measurement in measurements)
  except OSError as error:
    raise UserError(
      f"cannot write the results to {path!r}: {error.strerror}. Give --output another path."
    ) from error


def read(path: str) -> list[Measurement]:
  """Returns the measurements of a file, of those of one case the last.

  Raises:
    UserError: no such file, or a line that is no measurement.
  """
  try:
    lines = pathlib.Path(path).read_text().splitlines()
  except OSError as error:
    raise UserError(
      f"cannot read the results {path!r}: {error.strerror}. Measure them with --output={path}."
    ) from error
  found = {}
  for number, line in enumerate(lines, start=1):
    try:
      measurement = Measurement.from_json(line)
    except (ValueError, TypeError, KeyError) as error:
      raise UserError(
        f"{path}, line {number}: expected a measurement as --output writes it; received "
        f"{line[:60]!r} ({type(error).__name__}: {error})."
      ) from error
    found[measurement.case] = measurement
  if not found:
    raise UserError(f"{path} has no measurement in it. Measure some with --output={path}.")
  return list(found.values())


def group(measurements: Iterable[Measurement]) -> list[list[Measurement]]:
  """Returns those of contestants side by side together, in the order in which they come."""
  groups: dict[Case, list[Measurement]] = {}
  for measurement in measurements:
    groups.setdefault(measurement.case.group, []).append(measurement)
  return list(groups.values())
