"""The README's code runs and its commands name what exists."""

import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def test_functional_api_example_runs():
  (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
  names = {}
  exec(compile(code, "README.md", "exec"), names)
  assert names["model"].output_shape == (None, 10)
  assert set(names["backbone"].output_specs) == {"2", "3", "4", "5"}


@pytest.mark.parametrize("target", re.findall(r"^make ([a-z-]+)", README, re.MULTILINE))
def test_make_targets_exist(target):
  assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


def test_programs_and_links_exist():
  programs = set(re.findall(r"python -m sasa_tf\.bin\.(\w+)", README))
  assert programs == {
    "train",
    "make_tfrecords",
    "export_saved_model",
    "predict",
    "profile_model",
    "benchmark",
    "benchmark_input",
    "scaling",
    "tpu_check",
  }
  for program in programs:
    assert (ROOT / "sasa_tf" / "bin" / f"{program}.py").is_file()
  for link in re.findall(r"\]\(([^):]+)\)", README):
    assert (ROOT / link).exists(), link


def test_costs_are_what_the_program_prints():
  from sasa_tf.analysis.paper.classifiers import paper_cost
  from sasa_tf.analysis.paper.report import CLASSIFICATION, PaperReport

  rows = PaperReport.of([1], paper_cost).markdown().splitlines()
  rows = [line for line in rows if line.startswith("| ResNet")]
  assert len(rows) == 9
  for line in rows:
    assert line in README
  report = PaperReport.of(CLASSIFICATION, paper_cost)
  agreement, (flops, parameters) = report.headline()[0], report.savings()
  agree, of, largest = re.findall(r"([\d.]+) of (\d+) rows .*? ([\d.]+) G", agreement)[0]
  text = " ".join(README.split())
  assert f"Of all {of} rows, {agree} agree to the printed digit" in text
  assert f"the largest difference is {largest} GFLOPs" in text
  assert f"{flops:.1f} % fewer FLOPs and {parameters:.1f} % fewer parameters" in text


def test_overrides_of_the_commands_are_accepted():
  from sasa_tf import registry_imports  # noqa: F401
  from sasa_tf.training import checks, experiment

  (override,) = re.findall(r'--params_override="(.*?)"', README)
  params = experiment.load_experiment(
    "sasa_resnet_cifar10", params_override=override.replace("=N,", "=3,")
  )
  assert params.task.model.num_classes == 3
  for data in (params.task.train_data, params.task.validation_data):
    with pytest.raises(checks.UserError, match="no file matches"):  # so it is named once
      checks.check_data("data", data)


def test_overrides_of_the_quickstarts_are_accepted():
  from sasa_tf import registry_imports  # noqa: F401
  from sasa_tf.training import experiment

  makefile = (ROOT / "Makefile").read_text().replace("\\\n", " ")
  trained = re.findall(r'train --experiment=(\w+) .*?--params_override="(.*?)"', makefile)
  assert [name for name, _ in trained] == ["sasa_resnet_digits", "retinanet_sasa_scenes"]
  for name, override in trained:
    params = experiment.load_experiment(name, params_override=override)
    assert params.task.train_data.input_path.endswith("/train-*")


def test_experiments_of_the_table_are_registered():
  from official.core import exp_factory

  from sasa_tf import registry_imports  # noqa: F401

  for name in re.findall(r"^\| `(\w*sasa_\w+)` \|", README, re.MULTILINE):
    assert exp_factory.get_exp_config(name)
