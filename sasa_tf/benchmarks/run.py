"""Measures, shows and compares: what the program does once its flags are read."""

from __future__ import annotations

from collections.abc import Sequence

from sasa_tf.benchmarks.measurement.environment import describe_environment
from sasa_tf.benchmarks.measurement.measure import Effort, measure_group
from sasa_tf.benchmarks.progress import Progress
from sasa_tf.benchmarks.results import records
from sasa_tf.benchmarks.results.compare import compare
from sasa_tf.benchmarks.results.plot import require_matplotlib, save_plot
from sasa_tf.benchmarks.results.report import LEGEND, describe, describe_group
from sasa_tf.benchmarks.workloads.candidates import default_baselines
from sasa_tf.benchmarks.workloads.cases import Case
from sasa_tf.errors import UserError


def _baselines(names: Sequence[str], wanted: Sequence[str]) -> Sequence[str]:
  unknown = set(wanted) - set(names)
  if unknown:
    raise UserError(
      f"--baseline: {', '.join(sorted(unknown))} is not measured here; expected some of "
      f"{', '.join(names)}."
    )
  return wanted or default_baselines(names)


def measure(
  groups: Sequence[Sequence[Case]],
  effort: Effort,
  *,
  baselines: Sequence[str] = (),
  output: str | None = None,
  plot: str | None = None,
  command: str = "",
) -> None:
  """Measures groups one after the other; each is printed and written when it is done.

  Args:
    groups: of `cases.case_groups`.
    effort: how thoroughly.
    baselines: contestants to compare with; the usual ones by default.
    output: JSON lines to add to, or None.
    plot: picture to write, or None.
    command: that a reader of the results needs to repeat them.

  Raises:
    UserError: a baseline that does not take part, no way to write the results or the plot, or
      nothing could be measured at all.
  """
  # What could spoil the end of a long measurement comes first.
  baselines = _baselines([case.contestant for case in groups[0]], baselines)
  if plot:
    require_matplotlib()
  if output:
    records.append(output, [])
  environment = describe_environment()
  progress = Progress(sum(effort.count_runs(len(cases)) for cases in groups))
  progress.write(f"{describe(environment)}\n\n{LEGEND}")
  everything = []
  try:
    for cases in groups:
      measurements = measure_group(cases, effort, progress, environment, command)
      everything += measurements
      if output:
        records.append(output, measurements)
      progress.write("\n" + describe_group(measurements, baselines))
  finally:
    progress.close()
    if plot and everything:
      save_plot(everything, plot)
  if not any(measurement.seconds for measurement in everything):
    raise UserError("no contestant could be measured; the tables say why.")


def show(path: str, *, baselines: Sequence[str] = (), plot: str | None = None) -> None:
  """Prints the results of a file, and draws them if asked."""
  measurements = records.read(path)
  print(f"{describe(measurements[-1].environment)}\n\n{LEGEND}")
  for group in records.group(measurements):
    names = [m.case.contestant for m in group]
    wanted = [name for name in baselines if name in names] or default_baselines(names)
    print("\n" + describe_group(group, wanted))
  if plot:
    save_plot(measurements, plot)


def compare_files(paths: Sequence[str]) -> None:
  """Prints two files of results side by side, the older one first.

  Raises:
    UserError: not two files, or one that is none of results.
  """
  if len(paths) != 2:
    raise UserError(
      f"--compare needs two files, the older first: --compare=OLD.jsonl,NEW.jsonl; received "
      f"{len(paths)}."
    )
  print(compare(*map(records.read, paths)))
