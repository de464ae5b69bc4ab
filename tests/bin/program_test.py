"""What all programs do about output and errors."""

import os
import subprocess
import sys

import pytest


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_names_that_the_encoding_lacks_are_printed_as_escapes(encoding):
  names = r"'\u732b \udcff \ud800'"
  program = (
    "from sasa_tf.bin import program\n"
    "from sasa_tf.errors import UserError\n"
    "def main(argv):\n"
    f"  print({names})\n"
    f"  raise UserError({names})\n"
    "program.run(main)\n"
  )
  result = subprocess.run(
    [sys.executable, "-c", program],
    env={**os.environ, "PYTHONIOENCODING": encoding},
    capture_output=True,
    check=False,
  )
  expected = names[1:-1].encode() if encoding != "utf-8" else rb"\udcff \ud800"
  assert result.returncode == 2
  assert expected in result.stdout
  assert result.stderr.startswith(b"error: ") and expected in result.stderr
