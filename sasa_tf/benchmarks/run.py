"""Measures, prints and compares: the benchmark program after its flags are parsed."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from sasa_tf.benchmarks.measurement.environment import describe_environment
from sasa_tf.benchmarks.measurement.measure import MeasurementPlan, measure_group
from sasa_tf.benchmarks.results import records
from sasa_tf.benchmarks.results.compare import compare
from sasa_tf.benchmarks.results.plot import check_plot, save_plot
from sasa_tf.benchmarks.results.report import LEGEND, describe, describe_group
from sasa_tf.benchmarks.workloads.candidates import default_baselines
from sasa_tf.benchmarks.workloads.cases import Case
from sasa_tf.errors import UserError
from sasa_tf.outputs.json_lines import check_json_lines
from sasa_tf.reporting import ProgressBar


def _check_baselines(candidates: Sequence[str], baselines: Sequence[str]) -> Sequence[str]:
  """Returns the baselines, those of `default_baselines` if there are none."""
  unknown = set(baselines) - set(candidates)
  if unknown:
    raise UserError(
      f"--baselines: {', '.join(sorted(unknown))} is not measured here; expected some of "
      f"{', '.join(candidates)}."
    )
  return baselines or default_baselines(candidates)


def measure(
  groups: Sequence[Sequence[Case]],
  plan: MeasurementPlan,
  *,
  baselines: Sequence[str] = (),
  output: str | None = None,
  plot: str | None = None,
  overwrite: bool = False,
  command: str = "",
) -> None:
  """Measures groups one after the other; each is printed and written when it is complete.

  Args:
    groups: from `cases.case_groups`.
    plan: number and length of the runs.
    baselines: candidates to compare with; those of `default_baselines` by default.
    output: JSON-lines file to append the results to, or None.
    plot: image file to write, or None.
    overwrite: whether to replace an existing plot.
    command: the command line, stored with the results.

  Raises:
    UserError: a baseline is not a candidate, the results or the plot cannot be written, or no
      candidate could be measured.
  """
  # Checks everything that could fail at the end of a long measurement.
  baselines = _check_baselines([case.candidate for case in groups[0]], baselines)
  if plot:
    check_plot(plot, overwrite)
  if output:
    check_json_lines(output)
  environment = describe_environment()
  total = sum(plan.count_runs(len(cases)) for cases in groups)
  measured = []
  with ProgressBar(total, unit="run", transient=True) as progress:
    progress.write(f"{describe(environment)}\n\n{LEGEND}", sys.stdout)
    try:
      for cases in groups:
        measurements = measure_group(cases, plan, progress, environment, command)
        measured += measurements
        if output:
          records.append(output, measurements)
        progress.write("\n" + describe_group(measurements, baselines), sys.stdout)
    finally:
      if plot and measured:
        save_plot(measured, plot, overwrite=overwrite)
  if not any(measurement.seconds for measurement in measured):
    first = measured[0]
    raise UserError(
      f"no candidate could be measured; the tables show the errors. The first: "
      f"{first.case.candidate}: {first.error}. Change the flags, or use a machine with more memory."
    )


def show(
  path: str, *, baselines: Sequence[str] = (), plot: str | None = None, overwrite: bool = False
) -> None:
  """Prints the results of a file, and plots them if requested."""
  measurements = records.read(path)
  print(f"{describe(measurements[-1].environment)}\n\n{LEGEND}")
  for group in records.group(measurements):
    names = [m.case.candidate for m in group]
    chosen = [name for name in baselines if name in names] or default_baselines(names)
    print("\n" + describe_group(group, chosen))
  if plot:
    save_plot(measurements, plot, overwrite=overwrite)


def compare_files(paths: Sequence[str]) -> None:
  """Prints a comparison of two result files, the older one first.

  Raises:
    UserError: there are not two files, or one is not a result file.
  """
  if len(paths) != 2:
    raise UserError(
      f"--compare needs two files, the older first: --compare=OLD.jsonl,NEW.jsonl; received "
      f"{len(paths)}."
    )
  print(compare(*map(records.read, paths)))
