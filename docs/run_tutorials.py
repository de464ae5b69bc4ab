"""Runs the notebooks of docs/tutorials and stores their outputs in them.

  python docs/run_tutorials.py [NAME...]

NAME is a file name without its suffix; by default, all notebooks are run. Outputs are stored as
Jupyter shows them: of a progress bar, its last state.
"""

from __future__ import annotations

import pathlib
import re
import sys
from typing import Any

import nbclient
import nbformat

TUTORIALS = pathlib.Path(__file__).parent / "tutorials"


def run(path: pathlib.Path) -> None:
  """Runs a notebook and rewrites its file."""
  notebook = nbformat.read(path, as_version=4)
  nbclient.NotebookClient(notebook, timeout=3600, kernel_name="python3").execute()
  clean(notebook)
  nbformat.write(notebook, path)


def clean(notebook: Any) -> None:
  """Joins the texts of each cell, without what a carriage return overwrites, and drops times."""
  for cell in notebook.cells:
    cell.metadata.pop("execution", None)
    if cell.cell_type == "code":
      streams = [output for output in cell.outputs if output.output_type == "stream"]
      others = [output for output in cell.outputs if output.output_type != "stream"]
      text = "".join(output.text for output in streams)
      shown = "".join(f"{line}\n" for line in displayed_lines(text))
      cell.outputs = [nbformat.v4.new_output("stream", name="stdout", text=shown)] if shown else []
      cell.outputs += others


def displayed_lines(text: str) -> list[str]:
  """Returns the lines that a terminal shows."""
  text = re.sub("\x1b\\[[0-9;]*[A-Za-z]", "", text.replace("\r\n", "\n"))
  lines = []
  for line in text.rstrip("\n").split("\n"):
    shown = ""
    for part in line.split("\r"):
      shown = part + shown[len(part) :]
    lines.append(shown.rstrip())
  return lines if text.strip() else []


def main(names: list[str]) -> None:
  """Runs the named notebooks, or all of them."""
  for path in sorted(TUTORIALS.glob("*.ipynb")):
    if not names or path.stem in names:
      print(f"running {path}", flush=True)
      run(path)


if __name__ == "__main__":
  main(sys.argv[1:])
