"""Writes what `make quickstart` printed into README.md.

  make quickstart 2>&1 | tee build/quickstart.log
  python docs/render_quickstart.py build/quickstart.log

Lines of the installation, before the first program, are dropped.
"""

from __future__ import annotations

import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).parent.parent
# Stands for the directory of the checkout.
HOME = "/home/me/sasa_tf"
_MARKED = re.compile(
  r"(<!-- quickstart -->\n\n```text\n)(.*?)(```\n\n<!-- /quickstart -->)", re.DOTALL
)
_FIRST_COMMAND = re.compile(r"^\S+/python -m sasa_tf\.bin\.make_tfrecords", re.MULTILINE)


def transcript(readme: str) -> str:
  """Returns the output of the quickstart in the README."""
  ((_, text, _),) = _MARKED.findall(readme)
  return text


def render(readme: str, log: str) -> str:
  """Returns the README with the output of a log."""
  text = log[_FIRST_COMMAND.search(log).start() :].replace(str(ROOT), HOME)
  return _MARKED.sub(lambda match: f"{match[1]}{text.rstrip()}\n{match[3]}", readme)


def main(log: str) -> None:
  """Rewrites README.md."""
  path = ROOT / "README.md"
  path.write_text(render(path.read_text(), pathlib.Path(log).read_text()))


if __name__ == "__main__":
  main(sys.argv[1])
