"""Type checkers see the public signatures, including the allowed strings."""

import pathlib
import re

from mypy import api

HERE = pathlib.Path(__file__).parent
ROOT = HERE.parent.parent


def check(program, cache):
  options = ["--config-file", str(ROOT / "pyproject.toml"), "--cache-dir", str(cache)]
  output, errors, _ = api.run([*options, "--no-error-summary", str(HERE / program)])
  assert not errors, errors
  return output


def test_user_program_passes(tmp_path):
  assert check("user_program.py", tmp_path) == ""


def test_each_error_of_a_user_is_reported(tmp_path):
  lines = (HERE / "wrong_program.py").read_text().splitlines()
  expected = {
    (number, match[1])
    for number, line in enumerate(lines, 1)
    if (match := re.search(r"# error: ([a-z-]+)", line))
  }
  output = check("wrong_program.py", tmp_path)
  found = re.findall(r"wrong_program\.py:(\d+): error: .*\[([a-z-]+)\]$", output, re.MULTILINE)
  assert {(int(number), code) for number, code in found} == expected, output
