"""The runs of a study: their directories, settings and commands."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import pathlib
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypedDict

import yaml

from sasa_tf.errors import UserError
from sasa_tf.outputs.json_types import Finite, conforms
from sasa_tf.outputs.path_checks import check_plain_files
from sasa_tf.outputs.run_log import RunLogSummary, read_run_log
from sasa_tf.studies.study_file import Row, Study, merge

RESULTS_FILE = "results.jsonl"
_OVERRIDES_FILE = "overrides.yaml"
_SETTINGS_FILE = "settings.json"
_COST_FILE = "cost.json"
# Output and lock of the process that counts the cost.
COST_JOB_FILES = ("cost.log", "cost.lock")


@dataclasses.dataclass(frozen=True)
class Run:
  """One training of a study.

  Attributes:
    study: that it belongs to.
    row: its configuration.
    seed: its seed.
    output: directory of all runs.
    params_override: further overrides, as of `train --params_override`; "" for none.
    num_gpus: of the training: 1, or 0 for the CPU.
  """

  study: Study
  row: Row
  seed: int
  output: pathlib.Path
  params_override: str
  num_gpus: int

  @property
  def name(self) -> str:
    """For messages."""
    return f"{self.row.name}, seed {self.seed}"

  @property
  def row_dir(self) -> pathlib.Path:
    """Directory of the row."""
    return self.output / self.row.name

  @property
  def model_dir(self) -> pathlib.Path:
    """Directory of the training."""
    return self.row_dir / f"seed{self.seed}"

  @property
  def log(self) -> pathlib.Path:
    """File for the output of the training."""
    return self.row_dir / f"seed{self.seed}.log"

  @property
  def lock(self) -> pathlib.Path:
    """File that is locked while the training runs."""
    return self.row_dir / f"seed{self.seed}.lock"

  @property
  def cost_file(self) -> pathlib.Path:
    """File with the cost of the model."""
    return self.row_dir / _COST_FILE

  def case(self) -> dict[str, Any]:
    """Returns what identifies the run among the results."""
    return {"study": self.study.name, "row": self.row.name, "seed": self.seed}

  def settings(self) -> dict[str, Any]:
    """Returns all that affects the result, apart from the contents of the configuration files."""
    return {
      "experiment": self.row.experiment,
      "config_files": list(self.row.config_files),
      "overrides": self.row.overrides,
      "params_override": self.params_override,
    }

  def digest(self) -> str:
    """Returns a short hash of the settings."""
    return hashlib.sha256(json.dumps(self.settings(), sort_keys=True).encode()).hexdigest()[:16]

  def prepare(self) -> None:
    """Writes the overrides of the row and checks that the directory is of the same settings.

    Raises:
      UserError: the directory holds a training with other settings.
    """
    self.row_dir.mkdir(parents=True, exist_ok=True)
    settings = self.row_dir / _SETTINGS_FILE
    names = (_SETTINGS_FILE, _OVERRIDES_FILE, _COST_FILE, *COST_JOB_FILES)
    check_plain_files([*(self.row_dir / name for name in names), self.log, self.lock], "the study")
    if settings.exists() and any(self.row_dir.glob("seed*/ckpt-*")):
      earlier = _read_settings(settings)
      changed = sorted(key for key, value in self.settings().items() if earlier.get(key) != value)
      if changed:
        raise UserError(
          f"{self.row_dir} holds trainings with other settings ({', '.join(changed)} changed). Use "
          "another --output, remove the directory, or restore the settings in "
          f"{settings}."
        )
    settings.write_text(json.dumps(self.settings(), indent=1) + "\n", encoding="utf-8")
    overrides = merge(self.row.overrides, {"runtime": {"num_gpus": self.num_gpus}})
    text = yaml.safe_dump(overrides, sort_keys=False)
    (self.row_dir / _OVERRIDES_FILE).write_text(text, encoding="utf-8")

  def read_log(self) -> RunLogSummary:
    """Returns the log of the training."""
    return read_run_log(self.model_dir)

  def _configuration_flags(self) -> list[str]:
    files = [*self.row.config_files, str(self.row_dir / _OVERRIDES_FILE)]
    flags = [f"--experiment={self.row.experiment}", *(f"--config_file={file}" for file in files)]
    return [*flags, *([f"--params_override={self.params_override}"] * bool(self.params_override))]


Commands = Callable[[Run], Sequence[str]]


def train_command(run: Run) -> list[str]:
  """Returns the command that starts or resumes the training."""
  return [
    sys.executable,
    "-m",
    "sasa_tf.bin.train",
    "--mode=train_and_eval",
    f"--model_dir={run.model_dir}",
    f"--seed={run.seed}",
    *run._configuration_flags(),
  ]


def cost_command(run: Run) -> list[str]:
  """Returns the command that counts parameters and FLOPs of the row's model."""
  return [
    sys.executable,
    "-m",
    "sasa_tf.bin.profile_model",
    "--format=json",
    "--noprofiler",
    "--overwrite",
    f"--output={run.cost_file}",
    *run._configuration_flags(),
  ]


def _read_json(path: pathlib.Path) -> Any:
  """Returns the value of a file; None if it is missing, or something else than JSON."""
  if not os.path.isfile(path):  # a pipe would be read forever
    return None
  try:
    return json.loads(path.read_text(encoding="utf-8"))
  except (RecursionError, ValueError):
    return None


def _read_settings(path: pathlib.Path) -> Mapping[str, Any]:
  settings = _read_json(path)
  if not isinstance(settings, Mapping):
    raise UserError(
      f"{path}: expected the settings that the study wrote; received something else. Restore the "
      "file, or use another --output."
    )
  return settings


class Cost(TypedDict):
  """FLOPs of a forward pass of an image, by convention."""

  mac: Finite
  paper: Finite


def read_cost(run: Run) -> Cost | None:
  """Returns the FLOPs of the row's model; None if they are not counted yet."""
  cost = _read_json(run.cost_file)
  flops = cost.get("flops") if isinstance(cost, Mapping) else None
  return flops if conforms(flops, Cost) else None
