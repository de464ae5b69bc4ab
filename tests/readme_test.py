"""The README's examples run, and what it names exists."""

import contextlib
import io
import json
import pathlib
import re
import sys

import pytest

from tests.line_shapes import shape, shapes

ROOT = pathlib.Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
sys.path.insert(0, str(ROOT / "docs"))

import render_quickstart  # noqa: E402

EXAMPLES = re.findall(r"```python\n(.*?)```\n\n```text\n(.*?)```", README, re.DOTALL)


@pytest.mark.parametrize(("code", "expected"), EXAMPLES, ids=("layers", "preset"))
def test_python_examples_print_the_documented_output(code, expected):
  printed = io.StringIO()
  with contextlib.redirect_stdout(printed):
    exec(compile(code, "README.md", "exec"), {})
  assert printed.getvalue() == expected


@pytest.mark.parametrize("target", re.findall(r"^make ([a-z-]+)", README, re.MULTILINE))
def test_make_targets_exist(target):
  assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


def test_quickstart_has_the_commands_and_last_lines_of_the_makefile():
  recipe = (ROOT / "Makefile").read_text()
  recipe = re.search(r"^quickstart:.*?\n(.*?)\n\n", recipe, re.DOTALL | re.MULTILINE)[1]
  recipe = recipe.replace("$(QUICKSTART)", ".quickstart").replace("$(BIN)", ".venv/bin")
  printed = render_quickstart.transcript(README).splitlines()
  for line in recipe.splitlines():
    line = line.removeprefix("\t")
    if line == "@echo":
      assert "" in printed
    else:
      assert re.sub('^@echo "(.*)"$', r"\1", line) in printed


def test_lines_of_the_quickstart_are_those_that_programs_print(tmp_path):
  """Compares shapes of lines, which the slower tests of the programs do for real runs."""
  from sasa_tf.reporting import ProgressBar

  known = shapes(render_quickstart.transcript(README))
  stream, seconds = io.StringIO(), iter(range(0, 1000, 100))
  progress = ProgressBar(
    880, "train", unit="step", stream=stream, warmup=True, clock=lambda: next(seconds)
  )
  metrics = {"accuracy": 0.5, "top_3_accuracy": 0.7, "training_loss": 1.9, "learning_rate": 0.003}
  arguments = {"notes": ["memory 1.1 GiB"], "speed": "3.4 steps/s, 110 images/s"}
  progress.advance(44, metrics, **arguments)
  progress.advance(44, metrics, **arguments)
  lines = stream.getvalue().splitlines()
  assert len(lines) == 2
  for line in lines:
    assert shape(line) in known


def test_extras_exist():
  setup = (ROOT / "setup.py").read_text()
  for extra in set(re.findall(r"\[(garden|report|all|tpu)\]", README)):
    assert f'"{extra}": ' in setup


def test_experiments_of_the_table_are_registered():
  from official.core import exp_factory

  from sasa_tf import registry_imports  # noqa: F401

  names = re.findall(r"^\| `(\w*sasa_\w+)` \|", README, re.MULTILINE)
  assert len(names) == 5
  for name in names:
    assert exp_factory.get_exp_config(name)


def test_overrides_of_the_quickstarts_are_accepted():
  from sasa_tf import registry_imports  # noqa: F401
  from sasa_tf.training import experiment

  makefile = (ROOT / "Makefile").read_text().replace("\\\n", " ")
  trained = re.findall(r'train --experiment=(\w+) .*?--params_override="(.*?)"', makefile)
  assert [name for name, _ in trained] == ["sasa_resnet_digits", "retinanet_sasa_scenes"]
  for name, override in trained:
    params = experiment.load_experiment(name, params_override=override)
    assert params.task.train_data.input_path.endswith("/train-*")


def test_figures_show_the_current_results(monkeypatch):
  monkeypatch.syspath_prepend(str(ROOT / "docs" / "images"))
  monkeypatch.syspath_prepend(str(ROOT / "docs"))
  import make_figures

  images = ROOT / "docs" / "images"
  for mode in make_figures.THEMES:
    (shown,) = re.findall(
      r"<dc:description>(.*?)</dc:description>", (images / f"chart-{mode}.svg").read_text()
    )
    assert json.loads(shown.replace("&quot;", '"')) == make_figures.chart_values()
    assert (images / f"window-{mode}.svg").is_file()
  for name, badge in make_figures.badges().items():
    # The text widths depend on the version of matplotlib.
    (title,) = re.findall("<title>.*?</title>", badge)
    assert title in (images / name).read_text()
