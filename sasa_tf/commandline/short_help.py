"""The text of --helpshort: what a program does, and one line for each flag."""

from __future__ import annotations

import pathlib
import re
import shutil

from sasa_tf.commandline.flag_source import documentation, flags_of

_MAX_WIDTH = 100


def short_help(source: pathlib.Path, command: str) -> str:
  """Returns the short help of a program.

  Args:
    source: the program's file.
    command: how it was called.
  """
  width = min(_MAX_WIDTH, shutil.get_terminal_size().columns)
  text = documentation(source)
  flags = flags_of(source)
  names = max((len(flag.name) for flag in flags), default=0)
  return "\n".join(
    [
      text.partition("\n")[0],
      "",
      *(_examples(text, command) or [f"  {command} [FLAGS]"]),
      "",
      *(_clip(f"  --{flag.name:{names}}  {_first_sentence(flag.help)}", width) for flag in flags),
      "",
      f"{command} --help explains the flags.",
    ]
  )


def _examples(text: str, command: str) -> list[str]:
  """Returns the commands of a docstring, which are indented, as `command` spells them."""
  lines = [line for line in text.split("\n") if re.match(r" *python -m sasa_tf|  +-", line)]
  lines = [re.sub(r"^ *python -m sasa_tf[.\w]*", f"  {command}", line) for line in lines]
  return [re.sub(r"(?<=\S) +", " ", line) for line in lines]


def _first_sentence(text: str) -> str:
  return re.split(r"(?<=[.;]) ", " ".join(text.split()), maxsplit=1)[0].rstrip(".;")


def _clip(line: str, width: int) -> str:
  return line if len(line) <= width else f"{line[: width - 3].rsplit(' ', 1)[0]}..."
