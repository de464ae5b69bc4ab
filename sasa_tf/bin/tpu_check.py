"""Compiles attention layers, SASAResNet-50 and its training step for a core of a TPU v5e.

It does not need a TPU.

  python -m sasa_tf.bin.tpu_check
  python -m sasa_tf.bin.tpu_check --targets=layer --dtypes=bfloat16 --batch_size=128

Prints the memory that each program needs. Exits with status 1 if a program does not compile or
does not fit into the memory of the core. Requires the packages of the extra `tpu`, which
`make tpu-check` installs.
"""

from __future__ import annotations

import sys

from absl import flags

from sasa_tf.bin import program
from sasa_tf.errors import UserError

program.require("tf_keras")

FLAGS = flags.FLAGS

flags.DEFINE_list(
  "targets",
  ["layer", "model", "step"],
  "layer: forward and backward pass with the shapes of ResNet's four stages; model: forward pass "
  "of ResNet-50; step: its training step, in bfloat16.",
)
flags.DEFINE_list("dtypes", ["bfloat16", "float32"], "Dtypes of the computation.")
flags.DEFINE_integer(
  "batch_size",
  None,
  "Batch size. By default 32, and 128 for the training step.",
  lower_bound=1,
  upper_bound=1_000_000,
)


def main(argv: list[str]) -> None:
  """Compiles the programs and prints a table."""
  program.check_no_positional_args(argv)

  from sasa_tf.analysis.tpu import checks, compiler, report

  for flag, known in (("targets", checks.TARGETS), ("dtypes", tuple(checks.POLICIES))):
    if not FLAGS[flag].value or not set(FLAGS[flag].value) <= set(known):
      raise UserError(
        f"--{flag}: expected some of {', '.join(known)}; received {','.join(FLAGS[flag].value)!r}."
      )
  compiler.require_compiler()
  print(report.header(), flush=True)
  passed = True
  for result in checks.run_checks(checks.all_checks(FLAGS.targets, FLAGS.dtypes, FLAGS.batch_size)):
    print(report.line(result), flush=True)
    passed &= result.passed
  if not passed:
    sys.exit(1)


def run() -> None:
  """Console script."""
  program.run(main)


if __name__ == "__main__":
  run()
