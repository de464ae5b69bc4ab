"""Shapes of printed lines: what remains of a line without its numbers and paths."""

import re

_NUMBER = r"\d+(?:,\d{3})*(?:\.\d+)?(?:e[-+]\d+)?"
_DURATION = r"(?:\d+ d )?(?:\d+ h )?(?:\d+ min|\d+ s|\d+ h|\d+ d) left"


def shape(line):
  """Returns a line with # for each number, PATH for each path, and single spaces."""
  line = re.sub(_DURATION, "# left", line)
  line = re.sub(r"\d[\d.]* s/step", "# steps/s", line)
  line = re.sub(r"(?:[\w.~-]+)?(?:/[\w.*~-]+)+(?!\d)", lambda m: _path_shape(m[0]), line)
  line = re.sub(_NUMBER, "#", line)
  return re.sub(r"  +", "  ", line).rstrip()


def _path_shape(text):
  units = ("steps/s", "images/s")
  return text if text.endswith(units) else "PATH"


def shapes(text):
  """Returns {shape: line} of the lines of a text."""
  return {shape(line): line for line in text.splitlines() if line.strip()}
