"""The documents agree with results.json and with the programs."""

import pathlib
import re
import sys

import pytest

from sasa_tf.commandline.flag_source import flags_of

ROOT = pathlib.Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "docs"))

import render_configuration  # noqa: E402
import render_paper_tables  # noqa: E402
import render_results  # noqa: E402

DOCUMENTS = [
  *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
  *sorted((ROOT / "docs").rglob("*.md")),
  ROOT / "official_configs" / "README.md",
]
# Defined by Model Garden and absl.
SHARED_FLAGS = {"experiment", "mode", "model_dir", "config_file", "params_override", "help"}


def commands(text):
  """Returns (program, flags) for each command line of a document."""
  text = text.replace("\\\n", " ")
  found = re.findall(r"python -m sasa_tf\.bin\.(\w+)([^`\n;]*)", text)
  return [(name, re.findall(r"(?<!\S)--([a-z_0-9]+)", rest)) for name, rest in found]


@pytest.mark.parametrize("path", render_results.markdown_files(), ids=lambda path: path.name)
def test_tables_are_rendered_from_the_results(path):
  text = path.read_text()
  assert render_results.render_text(text) == text, "run: python docs/render_results.py"


def test_every_result_is_shown_and_complete():
  markers = re.findall(
    r"<!-- results:([\w-]+) -->",
    "".join(path.read_text() for path in render_results.markdown_files()),
  )
  sources = {"model_cost"}  # rendered by the summary
  sets = render_results.RESULTS["sets"]
  assert set(markers) | sources == set(sets) | set(render_results.SUMMARIES)
  for name, result in sets.items():
    assert result["hardware"] in render_results.RESULTS["hardware"], name
    assert result["command"], name
    columns = [column for column in result["columns"] if "ratio_of" not in column]
    assert all(len(row) == len(columns) for row in result["rows"]), name


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_exist(path):
  text = path.read_text()
  links = re.findall(r"\]\(([^)]+)\)", text) + re.findall(r'src(?:set)?="([^"]+)"', text)
  for link in links:
    if "://" not in link and not link.startswith("#"):
      assert (path.parent / link.partition("#")[0]).exists(), link


@pytest.mark.parametrize(
  "path", [*DOCUMENTS, ROOT / "docs" / "results.json"], ids=lambda path: str(path.relative_to(ROOT))
)
def test_programs_and_flags_of_commands_exist(path):
  for program, flags in commands(path.read_text()):
    known = {each.name for each in flags_of(ROOT / "sasa_tf" / "bin" / f"{program}.py")}
    for flag in set(flags) - SHARED_FLAGS:
      assert {flag, flag.removeprefix("no")} & known, f"{program} --{flag}"


def test_cost_tables_are_those_of_the_program():
  from sasa_tf.analysis.paper.classifiers import paper_cost
  from sasa_tf.analysis.paper.report import CLASSIFICATION, PaperReport

  document = (ROOT / "docs" / "cost_model.md").read_text()
  rows = PaperReport.of([1], paper_cost).markdown().splitlines()
  rows = [line for line in rows if line.startswith("| ResNet")]
  assert len(rows) == 9
  for line in rows:
    assert line in document
  report = PaperReport.of(CLASSIFICATION, paper_cost)
  agreement, (flops, parameters) = report.summary()[0], report.savings()
  agree, of, largest = re.findall(r"([\d.]+) of (\d+) rows .*? ([\d.]+) G", agreement)[0]
  text = " ".join(document.split())
  assert f"Of all {of} rows, {agree} agree to the printed digit" in text
  assert f"the largest difference is {largest} GFLOPs" in text
  assert f"{flops:.1f} % fewer FLOPs and {parameters:.1f} % fewer parameters" in text


def test_paper_tables_are_rendered_from_the_cost_model():
  document = render_paper_tables.DOCUMENT.read_text()
  assert render_paper_tables.render() == document, "run: python docs/render_paper_tables.py"


def test_figures_of_the_concepts_are_rendered_in_both_modes(monkeypatch):
  monkeypatch.syspath_prepend(str(ROOT / "docs" / "images"))
  import render_concepts
  from drawing import THEMES

  names = {f"{name}-{mode}.svg" for name in render_concepts.FIGURES for mode in THEMES}
  assert {path.name for path in render_concepts.DIRECTORY.iterdir()} == names, (
    "run: python docs/render_concepts.py"
  )


def test_keys_are_rendered_from_the_schema():
  document = render_configuration.DOCUMENT.read_text()
  assert render_configuration.render() == document, "run: python docs/render_configuration.py"


def test_overrides_of_the_commands_are_accepted():
  from sasa_tf import registry_imports  # noqa: F401
  from sasa_tf.errors import UserError
  from sasa_tf.training import checks, experiment

  (override,) = re.findall(
    r'--params_override="(.*?)"', (ROOT / "docs" / "training.md").read_text()
  )
  params = experiment.load_experiment(
    "sasa_resnet_cifar10", params_override=override.replace("=N,", "=3,")
  )
  assert params.task.model.num_classes == 3
  for data in (params.task.train_data, params.task.validation_data):
    with pytest.raises(UserError, match="no file matches"):  # the path is one that was passed
      checks.check_data("data", data)
