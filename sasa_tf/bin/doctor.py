"""Checks the installation, the compiled kernels and the machine.

  python -m sasa_tf.bin.doctor

Runs one small forward and backward pass of each implementation of local attention and compares it
with the reference. The mark "!" stands for a problem, "-" for an optional part that is missing. The
exit status is 1 if there is a problem.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable

from sasa_tf.bin import program
from sasa_tf.diagnostics import machine, packages
from sasa_tf.diagnostics.findings import Finding, section


def main(argv: list[str]) -> None:
  """Prints the sections of the diagnosis as they are checked."""
  program.check_no_positional_args(argv)
  problems = 0

  def report(title: str, findings: Iterable[Finding]) -> None:
    nonlocal problems
    found = list(findings)
    problems += sum(finding.state == "problem" for finding in found)
    print(section(title, found), flush=True)

  core = list(packages.check_core())
  report("packages", core)
  report("extras", packages.check_extras())
  report("machine", machine.check_machine())
  if any(finding.state == "problem" for finding in core):
    sys.exit(1)

  from sasa_tf.diagnostics import implementations

  report("GPUs", machine.check_gpus())
  report("compiled kernels", implementations.check_kernels())
  report(
    f"implementations ({implementations.description()})", implementations.check_implementations()
  )
  print(
    f"\n{problems} problem{'s' * (problems != 1)} found." if problems else "\nNo problems found."
  )
  if problems:
    sys.exit(1)


def run() -> None:
  """Console script."""
  program.run(main)


if __name__ == "__main__":
  run()
