r"""Trains the rows of a study with several seeds on the GPUs of this host, and reports on them.

  python -m sasa_tf.bin.study --study=studies/cifar10.yaml --output=runs/cifar10
  python -m sasa_tf.bin.study --study=studies/cifar10.yaml --output=runs/cifar10 \
    --rows=convolution,attention_34 --seeds=0,1 --time_limit=480
  python -m sasa_tf.bin.study --results=runs/cifar10/results.jsonl --report=study.md

Each run is the train program in a process of its own, --processes_per_gpu of them on each GPU, or
one at a time on a host without GPUs. Each run that ends appends a line to OUTPUT/results.jsonl. To
resume after an interruption, rerun the same command: finished runs are not repeated, and
interrupted ones continue from their checkpoints. A run that fails does not stop the others.

SIGTERM, SIGINT and --time_limit make the runs save a checkpoint; the exit status is then 75. It is
1 if runs failed.

--report writes Markdown, plots and an HTML page from the results alone, without TensorFlow.
"""

from __future__ import annotations

import shlex
import sys

from absl import flags

from sasa_tf.bin import program
from sasa_tf.errors import UserError
from sasa_tf.outputs.path_checks import check_local_path

FLAGS = flags.FLAGS

flags.DEFINE_string(
  "study", None, "YAML file of the study: a path, or the name of an official config."
)
flags.DEFINE_string("output", None, "Directory for the runs and results.jsonl.")
flags.DEFINE_list("rows", None, "Rows to run; all by default.")
flags.DEFINE_list("seeds", None, "Seeds to run; by default those of the study file.")
flags.DEFINE_string(
  "params_override", "", "YAML string that overrides the configuration of all rows, as in train."
)
flags.DEFINE_integer("processes_per_gpu", 2, "Number of runs at a time on each GPU.", 1, 1024)
flags.DEFINE_integer(
  "cpu_processes", 1, "Number of runs at a time on a host without GPUs.", 1, 1024
)
flags.DEFINE_string(
  "gpus", "auto", "auto: all of CUDA_VISIBLE_DEVICES; none: the CPU; or indices or UUIDs."
)
flags.DEFINE_float(
  "time_limit", 0, "Seconds after which the runs save and end; 0 for no limit.", lower_bound=0
)
flags.DEFINE_enum(
  "order",
  "seeds",
  ["seeds", "rows"],
  "seeds: all first seeds before all second ones; rows: all seeds of the first row, then those of "
  "the second one, so that a study that ends early has complete rows.",
)
flags.DEFINE_float(
  "start_interval",
  0,
  "Seconds between the starts of two runs, at least, so that some compile while others train.",
  lower_bound=0,
)
flags.DEFINE_bool("pin_cores", False, "Give each run an equal share of the cores.")
flags.DEFINE_bool("dry_run", False, "Print the commands of the runs that are not finished.")
flags.DEFINE_string("report", None, "Markdown file for the report; needs the extra [report].")
flags.DEFINE_list("results", [], "Result files for --report; OUTPUT/results.jsonl by default.")
flags.DEFINE_string("baseline", None, "Row to compare with; by default that of the study file.")
flags.DEFINE_bool("overwrite", False, "Replace the files of --report if they exist.")


def _integers(values: list[str] | None) -> list[int] | None:
  if values is None:
    return None
  try:
    seeds = [int(value) for value in values]
  except ValueError:
    seeds = [-1]
  if not all(0 <= seed < 2**32 for seed in seeds):
    raise UserError(
      f"--seeds: expected integers from 0 to {2**32 - 1}, separated by commas; received "
      f"{','.join(values)!r}."
    )
  return seeds


def _run_study() -> int:
  """Runs the study; returns the number of failed runs."""
  program.require("official", "tf_keras")

  from sasa_tf.outputs.config_files import find_config_file
  from sasa_tf.studies import gpus
  from sasa_tf.studies.program import StudyProgram, plan_runs
  from sasa_tf.studies.runs import train_command
  from sasa_tf.studies.study_file import read_study

  if not FLAGS.output:
    raise UserError("--study needs --output, the directory for the runs.")
  check_local_path(FLAGS.output, "output")
  study = read_study(find_config_file(FLAGS.study, "study"))
  for file in dict.fromkeys(file for row in study.rows for file in row.config_files):
    if "://" not in file:  # the trainings read remote files too
      find_config_file(file, f"study={FLAGS.study}, config_files")
  found = gpus.find_gpus(FLAGS.gpus)
  planned = plan_runs(
    study,
    FLAGS.output,
    rows=FLAGS.rows,
    seeds=_integers(FLAGS.seeds),
    params_override=FLAGS.params_override,
    num_gpus=1 if found else 0,
    order=FLAGS.order,
  )
  runner = StudyProgram(
    planned,
    found,
    processes_per_gpu=FLAGS.processes_per_gpu if found else FLAGS.cpu_processes,
    start_interval=FLAGS.start_interval,
    pin_cores=FLAGS.pin_cores,
  )
  if FLAGS.dry_run:
    for run in runner.remaining:
      print(shlex.join(train_command(run)))
    return 0
  runner.run(FLAGS.time_limit or None)
  if runner.failures:
    print(f"{len(runner.failures)} of {len(planned)} runs failed:", file=sys.stderr)
    for name, error in runner.failures.items():
      print(f"  {name}: {error}", file=sys.stderr)
    print("Their logs are in --output. Rerun the same command to try them again.", file=sys.stderr)
  return len(runner.failures)


def main(argv: list[str]) -> None:
  """Runs a study, writes its report, or both."""
  program.check_no_positional_args(argv)
  if not FLAGS.study and not FLAGS.report:
    raise UserError("expected --study to run, or --report to write; received neither.")
  files = None
  if FLAGS.report:
    from sasa_tf.studies.report.page import check_report

    files = check_report(FLAGS.report, FLAGS.overwrite)
  failed = _run_study() if FLAGS.study else 0
  if files:
    _write_report(files)
  if failed:
    sys.exit(1)


def _write_report(files) -> None:
  from sasa_tf.studies.records import read_results
  from sasa_tf.studies.report.page import write_report
  from sasa_tf.studies.report.summary import summarize
  from sasa_tf.studies.runs import RESULTS_FILE

  results = FLAGS.results or ([f"{FLAGS.output}/{RESULTS_FILE}"] if FLAGS.output else [])
  if not results:
    raise UserError("--report needs --results, or the --output of a study.")
  write_report(summarize(read_results(results), FLAGS.baseline), files)
  print("\n".join(str(path) for path in files.values() if path.exists()))


def run() -> None:
  """Console script."""
  program.run(main, local_inputs=("results", "study"))


if __name__ == "__main__":
  run()
