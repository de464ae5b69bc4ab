"""Reads the YAML file of a study. docs/study.md describes the format."""

from __future__ import annotations

import dataclasses
import math
import pathlib
import re
from collections.abc import Iterable, Mapping
from typing import Any

from sasa_tf.errors import UserError, did_you_mean
from sasa_tf.outputs import plain_yaml

# Relations between a row and the one it is compared with, according to the paper.
EXPECTATIONS = ("higher", "lower", "not_lower")

_STUDY_KEYS = (
  "name",
  "experiment",
  "config_files",
  "overrides",
  "metric",
  "target",
  "seeds",
  "baseline",
  "rows",
)
_ROW_KEYS = ("experiment", "config_files", "overrides", "seeds", "paper", "compare_with", "expect")
# Of the configuration of an experiment.
_SECTIONS = ("runtime", "task", "trainer")
_MAX_SEEDS = 10_000
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


@dataclasses.dataclass(frozen=True)
class Row:
  """One configuration, which is trained with several seeds.

  Attributes:
    name: of the row; a file name.
    experiment: name of the registered experiment.
    config_files: YAML files for `train --config_file`.
    overrides: nested overrides after the files.
    seeds: of the runs.
    paper: what the paper found, for the report.
    compare_with: the row that the finding compares with.
    expect: what the paper found for this row: one of `EXPECTATIONS`, or None.
  """

  name: str
  experiment: str
  config_files: tuple[str, ...]
  overrides: Mapping[str, Any]
  seeds: tuple[int, ...]
  paper: str | None
  compare_with: str | None
  expect: str | None


@dataclasses.dataclass(frozen=True)
class Study:
  """A study file.

  Attributes:
    name: of the study.
    metric: of the evaluation, for example "accuracy".
    target: value of the metric, to measure the time to reach it; None for no target.
    baseline: the row that the report compares all rows with; None for the first one.
    rows: in the order of the report.
  """

  name: str
  metric: str
  target: float | None
  baseline: str
  rows: tuple[Row, ...]

  def select(
    self, rows: Iterable[str] | None = None, seeds: Iterable[int] | None = None
  ) -> list[tuple[Row, int]]:
    """Returns (row, seed) of the runs, all first seeds before all second ones.

    Args:
      rows: names of rows; None for all.
      seeds: instead of those of the rows; None for the latter.

    Raises:
      UserError: there is no such row.
    """
    known = {row.name: row for row in self.rows}
    if rows is not None:
      for name in (rows := list(rows)):
        if name not in known:
          raise UserError(f"--rows: the study has no row {name!r}. {did_you_mean(name, known)}")
    selected = [row for row in self.rows if rows is None or row.name in rows]
    chosen = None if seeds is None else tuple(seeds)
    runs = [
      (position, row, seed)
      for row in selected
      for position, seed in enumerate(row.seeds if chosen is None else chosen)
    ]
    return [(row, seed) for _, row, seed in sorted(runs, key=lambda run: run[0])]


def read_study(path: str | pathlib.Path) -> Study:
  """Reads a study file.

  Args:
    path: of the YAML file.

  Raises:
    UserError: the file cannot be read or is not a study.
  """
  try:
    content = plain_yaml.parse(pathlib.Path(path).read_text(encoding="utf-8"))
  except OSError as error:
    raise UserError(f"--study={path} cannot be read: {error.strerror}.") from error
  except ValueError as error:
    raise UserError(f"--study={path}: expected YAML: {error}. Correct the file.") from error
  return _Parser(str(path)).study(content, default_name=pathlib.Path(path).stem)


class _Parser:
  """Checks the values of a study file; errors name the file and the key."""

  def __init__(self, source: str):
    self._source = source

  def study(self, content: Any, default_name: str) -> Study:
    values = self._mapping("the file", content, _STUDY_KEYS)
    rows = self._mapping("rows", values.get("rows"))
    if not rows:
      raise self._error("rows", "at least one row", values.get("rows"))
    parsed = tuple(self._row(str(name), row, values) for name, row in rows.items())
    names = [row.name for row in parsed]
    baseline = values.get("baseline", names[0])
    for key, name in [("baseline", baseline), *((r.name, r.compare_with) for r in parsed)]:
      if name is not None and name not in names:
        raise UserError(
          f"--study={self._source}, {key}: no row {name!r}. {did_you_mean(str(name), names)}"
        )
    target = values.get("target")
    if target is not None and not (type(target) in (int, float) and math.isfinite(target)):
      raise self._error("target", "a finite number", target)
    return Study(
      name=self._name("name", values.get("name", default_name)),
      metric=self._text("metric", values.get("metric", "accuracy")),
      target=target,
      baseline=baseline,
      rows=parsed,
    )

  def _row(self, name: str, content: Any, study: Mapping[str, Any]) -> Row:
    where = f"rows.{self._name('rows', name)}"
    values = self._mapping(where, {} if content is None else content, _ROW_KEYS)
    experiment = values.get("experiment", study.get("experiment"))
    if not isinstance(experiment, str):
      raise self._error(
        "experiment", "the name of an experiment, in the study or the row", experiment
      )
    expect = values.get("expect")
    if expect is not None and expect not in EXPECTATIONS:
      raise self._error(f"{where}.expect", f"one of {', '.join(EXPECTATIONS)}", expect)
    if (expect is None) != (values.get("compare_with") is None):
      raise UserError(
        f"--study={self._source}, {where}: compare_with and expect belong together. Set both, or "
        "neither."
      )
    overrides = self._configuration("overrides", study.get("overrides"))
    return Row(
      name=name,
      experiment=experiment,
      config_files=(
        *self._texts("config_files", study.get("config_files")),
        *self._texts(f"{where}.config_files", values.get("config_files")),
      ),
      overrides=merge(
        overrides, self._configuration(f"{where}.overrides", values.get("overrides"))
      ),
      seeds=self._seeds(f"{where}.seeds", values.get("seeds", study.get("seeds", 1))),
      paper=None if values.get("paper") is None else self._text(f"{where}.paper", values["paper"]),
      compare_with=values.get("compare_with"),
      expect=expect,
    )

  def _mapping(self, where: str, value: Any, keys: Iterable[str] | None = None) -> dict[str, Any]:
    if not isinstance(value, dict):
      raise self._error(where, "keys with values", value)
    for key in value:
      if keys is not None and key not in keys:
        raise UserError(
          f"--study={self._source}, {where}: no key {key!r}. {did_you_mean(str(key), keys)}"
        )
    return value

  def _configuration(self, where: str, value: Any) -> dict[str, Any]:
    """Returns the overrides of a configuration; the trainings check the keys of its sections."""
    overrides = self._overrides(where, value)
    for key in overrides:
      if key not in _SECTIONS:
        raise UserError(
          f"--study={self._source}, {where}: no key {key!r} in the configuration of an experiment, "
          f"which has {', '.join(_SECTIONS)}. Correct or remove it."
        )
    return overrides

  def _overrides(self, where: str, value: Any) -> dict[str, Any]:
    """Returns nested overrides; keys may be nested or dotted."""
    nested: dict[str, Any] = {}
    for key, item in self._mapping(where, {} if value is None else value).items():
      first, *rest = str(key).split(".")
      item = self._overrides(f"{where}.{key}", item) if isinstance(item, dict) and item else item
      for part in reversed(rest):
        item = {part: item}
      nested = merge(nested, {first: item})
    return nested

  def _seeds(self, where: str, value: Any) -> tuple[int, ...]:
    """Returns seeds from their number or a list of them."""
    if isinstance(value, int) and not isinstance(value, bool) and 0 < value <= _MAX_SEEDS:
      return tuple(range(value))
    if isinstance(value, list) and value and all(type(v) is int and 0 <= v < 2**32 for v in value):
      return tuple(dict.fromkeys(value))
    raise self._error(where, f"a number of seeds, 1 to {_MAX_SEEDS:,}, or a list of seeds", value)

  def _texts(self, where: str, value: Any) -> tuple[str, ...]:
    values = [] if value is None else [value] if isinstance(value, str) else value
    if not isinstance(values, list):
      raise self._error(where, "a list of files", value)
    return tuple(self._text(where, item) for item in values)

  def _name(self, where: str, value: Any) -> str:
    if not isinstance(value, str) or not _NAME.fullmatch(value):
      raise self._error(where, "names of letters, digits, '.', '_' and '-'", value)
    return value

  def _text(self, where: str, value: Any) -> str:
    if not isinstance(value, str):
      raise self._error(where, "text", value)
    return value

  def _error(self, where: str, expected: str, value: Any) -> UserError:
    return UserError(
      f"--study={self._source}, {where}: expected {expected}; received {value!r}. docs/study.md "
      "describes the format."
    )


def merge(base: Mapping[str, Any], override: Mapping[str, Any]) -> dict[str, Any]:
  """Returns nested overrides in which those of `override` replace those of `base`."""
  merged = dict(base)
  for key, value in override.items():
    known = merged.get(key)
    if isinstance(known, Mapping) and isinstance(value, Mapping):
      value = merge(known, value)
    merged[key] = value
  return merged
