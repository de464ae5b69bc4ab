"""The official configurations match the paper, the models and the numbers in their headers."""

import functools
import pathlib
import re
import shlex

import numpy as np
import pytest
import yaml
from official.core import exp_factory, task_factory

from sasa_tf import registry_imports  # noqa: F401
from sasa_tf.analysis import cost_model
from sasa_tf.analysis.paper.classifiers import paper_cost
from sasa_tf.analysis.paper.detection_report import DetectionReport
from sasa_tf.analysis.paper.detectors import paper_detector_cost
from sasa_tf.analysis.paper.tables import DETECTORS, MODELS, rows_of
from sasa_tf.training import experiment

ROOT = pathlib.Path(__file__).parent.parent / "official_configs"
SOURCES = ROOT.parent / "sasa_tf"
NAMES = sorted(str(path.relative_to(ROOT)) for path in ROOT.glob("**/*.yaml"))
STUDIES = [name for name in NAMES if name.startswith("studies/")]
FILES = [name for name in NAMES if name not in STUDIES]
IMAGENET = {f"imagenet/{model}.yaml": model for model in MODELS}
COCO = {f"coco/{detector}.yaml": detector for detector in DETECTORS}

# Built by Model Garden in the fast tests, at least one of each kind; the others are slow tests.
BUILT = {
  "imagenet/resnet26.yaml",
  "imagenet/sasa_resnet26.yaml",
  "coco/retinanet_resnet50.yaml",
}
BUILT |= {name for name in FILES if name not in {*IMAGENET, *COCO}}


@functools.cache
def read(name):
  """Returns the values in the header and the loaded configuration."""
  values = dict(re.findall(r"^# ([\w ]+): (.*)$", (ROOT / name).read_text(), re.MULTILINE))
  flags = dict(part[2:].split("=", 1) for part in shlex.split(values["run"]) if part[:2] == "--")
  assert flags["config_file"] == name
  return values, experiment.load_experiment(flags["experiment"], [flags["config_file"]])


@pytest.mark.parametrize(
  "name", [pytest.param(f, marks=[] if f in BUILT else pytest.mark.slow) for f in FILES]
)
def test_parameters_match_the_built_model(name):
  values, params = read(name)
  model = task_factory.get_task(params.task).build_model()
  found = sum(int(np.prod(w.shape)) for w in model.trainable_weights)
  assert f"{found:,}" == values["parameters"]
  assert cost_model(model, params.task.model.input_size).parameters == found


@pytest.mark.parametrize("name", IMAGENET)
def test_imagenet_file_matches_its_row(name):
  _, params = read(name)
  default = exp_factory.get_exp_config("sasa_resnet_imagenet")
  arguments = {
    key: list(value) if isinstance(value, tuple) else value
    for key, value in MODELS[IMAGENET[name]].items()
  }
  expected = default.task.model.backbone.sasa_resnet.as_dict() | arguments
  assert params.task.model.backbone.get().as_dict() == expected
  assert params.task.model.input_size == [224, 224, 3] and params.task.model.num_classes == 1000


@pytest.mark.parametrize("name", IMAGENET)
def test_imagenet_header_matches_the_cost_model(name):
  values, _ = read(name)
  model = IMAGENET[name]
  cost, rows = paper_cost(model), rows_of(model)
  mac = cost.in_convention("mac").flops
  assert values["parameters"] == f"{cost.parameters:,}"
  assert values["flops"] == f"{cost.flops / 1e9:.3f} G (paper), {mac / 1e9:.3f} G (mac)"
  assert values["paper flops"] == f"{rows[0][1].flops:.1f} G"
  assert values["rows"] == "; ".join(f"Table {table.number}, {row.label}" for table, row in rows)
  accuracies = re.findall(
    r"([\d.]+) % \(Tables? ([\d, and]+)(?:, on a held-out)?", values["paper accuracy"]
  )
  found = {
    (int(number), float(accuracy))
    for accuracy, numbers in accuracies
    for number in re.findall(r"\d+", numbers)
  }
  assert found == {(table.number, row.accuracy) for table, row in rows}
  held_out = any("held-out" in table.split for table, _ in rows)
  assert ("on a held-out 4 % of the training images" in values["paper accuracy"]) == held_out


@pytest.fixture(scope="module")
def counted():
  """{name in DETECTORS: its row in the paper and its cost}."""
  report = DetectionReport.of(paper_detector_cost)
  return {detector.name: detector for detector in report.detectors}


@pytest.mark.parametrize("name", COCO)
def test_coco_file_matches_its_row(name):
  _, params = read(name)
  detector, model = DETECTORS[COCO[name]], params.task.model
  default = exp_factory.get_exp_config("retinanet_sasa_coco").task.model
  arguments = {
    key: list(value) if isinstance(value, tuple) else value
    for key, value in MODELS[detector.backbone].items()
  }
  assert model.backbone.get().as_dict() == default.backbone.sasa_resnet.as_dict() | arguments
  pyramid = default.decoder.sasa_fpn.as_dict() | {"spatial": detector.pyramid}
  assert model.decoder.get().as_dict() == pyramid
  assert model.head.as_dict() == default.head.as_dict() | {"spatial": detector.heads}
  assert model.input_size == [640, 640, 3] and model.num_classes == 91


@pytest.mark.parametrize("name", COCO)
def test_coco_header_matches_the_cost_model(counted, name):
  values, _ = read(name)
  detector = counted[COCO[name]]
  assert values["row"] == f"Table 2, {detector.row.label}"
  assert values["reading"] == DETECTORS[detector.name].interpretation
  assert values["parameters"] == f"{detector.cost.parameters:,}"
  assert values["without batch norm of pyramid and heads"] == f"{detector.bare_parameters:,}"
  flops = (f"{flops / 1e9:.1f} G ({name})" for name, flops in detector.flops().items())
  assert values["flops"] == ", ".join(flops)
  assert values["paper flops"] == f"{detector.row.flops:.0f} G"
  printed = tuple(map(float, re.findall(r"\d+\.\d", values["paper mAP"])))
  assert printed == detector.row.average_precision


def test_every_row_has_a_file():
  for folder, names in (("imagenet/", IMAGENET), ("coco/", COCO)):
    assert {name for name in FILES if name.startswith(folder)} == set(names)


@pytest.mark.parametrize("name", FILES)
def test_file_is_listed_in_the_readme(name):
  lines = (ROOT / "README.md").read_text().splitlines()
  (line,) = [line for line in lines if f"]({name})" in line]
  if name in IMAGENET:
    values, _ = read(name)
    paper, _ = values["flops"].split(" G (paper)")
    printed = values["paper flops"].removesuffix(" G")
    assert f" | {values['parameters']} | {paper} | {printed} | " in line
    rows = rows_of(IMAGENET[name])
    assert line.endswith(f" | {', '.join(str(table.number) for table, _ in rows)} |")
    for _, row in rows:
      assert f"{row.accuracy:.1f}" in line
  elif name in COCO:
    values, _ = read(name)
    flops = values["flops"].partition(" G ")[0]
    printed = values["paper flops"].removesuffix(" G")
    average_precision = values["paper mAP"].partition(" %")[0]
    end = f" | {values['parameters']} | {flops} | {printed} | {average_precision} |"
    assert line.endswith(end)


def test_held_out_command_of_the_readme_loads():
  text = (ROOT / "README.md").read_text()
  (command,) = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
  flags = dict(part[2:].split("=", 1) for part in shlex.split(command) if part[:2] == "--")
  params = experiment.load_experiment(
    flags["experiment"], [flags["config_file"]], flags["params_override"]
  )
  assert params.task.train_data.tfds_split == "train[:96%]"
  assert params.task.validation_data.tfds_split == "train[96%:]"


def test_files_named_in_messages_and_docstrings_exist():
  """Names with a directory, such as cifar10/resnet26.yaml."""
  named = {
    (str(path.relative_to(SOURCES)), name)
    for path in SOURCES.rglob("*.py")
    for name in re.findall(r"[\w/]+/\w+\.yaml", path.read_text())
    if not name.endswith("NAME.yaml")
  }
  assert named
  missing = {
    (path, name) for path, name in named if name.split("official_configs/")[-1] not in NAMES
  }
  assert not missing


@pytest.mark.parametrize("name", STUDIES)
def test_rows_of_studies_load(name):
  from sasa_tf.studies.study_file import read_study

  models = {}
  for row in read_study(ROOT / name).rows:
    params = experiment.load_experiment(
      row.experiment, row.config_files, yaml.safe_dump(dict(row.overrides))
    )
    models[row.name] = params.task.model.backbone.sasa_resnet.as_dict()
  if name == "studies/cifar10.yaml":
    assert len({str(model) for model in models.values()}) == len(models)
    assert models["convolution"]["attention_groups"] == []
    assert models["kernel_11"]["kernel_size"] == 11
