"""Compares trainings: curves, results, cost, and differences of their configurations.

  python -m sasa_tf.bin.report runs/a runs/b --output=report.html
  python -m sasa_tf.bin.report runs

Arguments are the model directories of trainings, finished or not, or directories that contain some.
The report is a table in the terminal; with --output also a self-contained HTML page, with the
curves in a PNG file beside it.
"""

from __future__ import annotations

from absl import flags

from sasa_tf.bin import program
from sasa_tf.errors import UserError

FLAGS = flags.FLAGS

# Names of runs are paths.
_WIDTH = 160

flags.DEFINE_string("output", None, "HTML file to write. The curves are written beside it as PNG.")
flags.DEFINE_bool("overwrite", False, "Replace the files of --output if they exist.")


def main(argv: list[str]) -> None:
  """Prints the table of the runs and writes the report."""
  if len(argv) < 2:
    raise UserError("expected the model directory of at least one training. See --help.")

  from sasa_tf.run_reports import page, tables
  from sasa_tf.run_reports.runs import read_runs

  files = page.check_output(FLAGS.output, FLAGS.overwrite) if FLAGS.output else None
  runs = read_runs(argv[1:])
  print(tables.runs_table(runs).to_text(_WIDTH))
  if (differences := tables.differences_table(runs)) is not None:
    print(f"\n{differences.to_text(_WIDTH)}")
  if files:
    page.write_report(runs, *files)
    print("\n" + "\n".join(str(path) for path in files if path.exists()))


def run() -> None:
  """Console script."""
  program.run(main)


if __name__ == "__main__":
  run()
