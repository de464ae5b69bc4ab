"""Output of libraries is hidden, and printed if they fail."""

import subprocess
import sys

import pytest

PROGRAM = """
import os, sys
from sasa_tf.errors import UserError
from sasa_tf.reporting.captured_output import hidden_output

print("before")
try:
  with hidden_output({hide}):
    print("out")
    print("err", file=sys.stderr)
    os.write(2, b"native ")  # as compiled code does
    {last}
except (RuntimeError, UserError) as error:
  print(type(error).__name__)
print("after")
"""


@pytest.mark.parametrize(
  ("hide", "last", "out", "err"),
  [
    (True, "pass", "before after", ""),
    (False, "pass", "before out after", "err native"),
    (True, "raise UserError('x')", "before UserError after", ""),
    (True, "raise RuntimeError('x')", "before RuntimeError after", "err native out"),
  ],
)
def test_output_is_hidden_unless_a_library_fails(hide, last, out, err):
  done = subprocess.run(
    [sys.executable, "-c", PROGRAM.format(hide=hide, last=last)],
    capture_output=True,
    text=True,
    check=True,
  )
  assert done.stdout.split() == out.split()
  assert sorted(done.stderr.split()) == sorted(err.split())
