"""The tutorial notebooks run, and their stored outputs are those of one complete run."""

import pathlib
import re
import sys

import pytest

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")

ROOT = pathlib.Path(__file__).parent.parent
TUTORIALS = ROOT / "docs" / "tutorials"
sys.path.insert(0, str(ROOT / "docs"))

import run_tutorials  # noqa: E402

# Notebook -> the environment variables of a run that takes a minute.
SMALL = {
  "01_keras_model": {"TUTORIAL_EPOCHS": "1"},
  "02_detector": {
    "TUTORIAL_TRAIN_IMAGES": "64",
    "TUTORIAL_TEST_IMAGES": "16",
    "TUTORIAL_STEPS": "4",
  },
}
MAX_BYTES = 500_000
MAX_LINES = 26
EXECUTION_SECONDS = 900


def read(name):
  return nbformat.read(TUTORIALS / f"{name}.ipynb", as_version=4)


def code_cells(notebook):
  return [cell for cell in notebook.cells if cell.cell_type == "code"]


def test_outputs_are_stored_as_displayed():
  text = "train: 0%\rtrain: 50%\r\x1b[Kevaluation\r\nat 99%, 1 s left\rtrain: 100%     \n\n"
  assert run_tutorials.displayed_lines(text) == ["evaluation", "train: 100%"]
  assert run_tutorials.displayed_lines("\n") == []
  cell = nbformat.v4.new_code_cell("x", execution_count=1)
  cell.outputs = [
    nbformat.v4.new_output("stream", name="stderr", text="10%\r"),
    nbformat.v4.new_output("stream", name="stdout", text="20%\n"),
  ]
  notebook = nbformat.v4.new_notebook(cells=[cell])
  run_tutorials.clean(notebook)
  assert [output.text for output in cell.outputs] == ["20%\n"]


def test_every_tutorial_is_tested():
  assert sorted(path.stem for path in TUTORIALS.glob("*.ipynb")) == sorted(SMALL)


@pytest.mark.parametrize("name", SMALL)
def test_stored_outputs(name):
  assert (TUTORIALS / f"{name}.ipynb").stat().st_size < MAX_BYTES
  notebook = read(name)
  nbformat.validate(notebook)
  cells = code_cells(notebook)
  assert [cell.execution_count for cell in cells] == [*range(1, len(cells) + 1)]
  images = 0
  for cell in cells:
    assert len(cell.source.splitlines()) <= MAX_LINES, cell.source
    for output in cell.outputs:
      assert output.output_type in ("stream", "display_data"), output
      text = output.get("text", "")
      assert output.get("name", "stdout") == "stdout", text
      assert not re.search(r"Traceback|(?<![\w.])/(home|root|tmp|usr|work)/", text), text
      images += "image/png" in output.get("data", {})
  assert images >= 3


@pytest.mark.parametrize("name", SMALL)
def test_tutorial_runs_at_a_small_size(name, tmp_path, monkeypatch):
  monkeypatch.setenv("PYTHONPATH", str(ROOT))
  for variable, value in SMALL[name].items():
    monkeypatch.setenv(variable, value)
  client = nbclient.NotebookClient(
    read(name),
    timeout=EXECUTION_SECONDS,
    kernel_name="python3",
    resources={"metadata": {"path": str(tmp_path)}},
  )
  client.execute()  # raises the error of a cell
