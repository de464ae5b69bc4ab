"""The official configurations: their headers say what is so."""

import pathlib
import re
import shlex

import numpy as np
import pytest
from official.core import task_factory

from sasa_tf import registry_imports  # noqa: F401
from sasa_tf.training import experiment

ROOT = pathlib.Path(__file__).parent.parent / "official_configs"
FILES = sorted(str(path.relative_to(ROOT)) for path in ROOT.glob("**/*.yaml"))


@pytest.mark.parametrize("name", FILES)
def test_header(name):
  header = re.findall(r"^# ([\w ]+): (.*)$", (ROOT / name).read_text(), re.MULTILINE)
  values = dict(header)
  flags = dict(part[2:].split("=", 1) for part in shlex.split(values["run"]) if part[:2] == "--")
  assert flags["config_file"] == name
  params = experiment.load_experiment(flags["experiment"], [flags["config_file"]])
  model = task_factory.get_task(params.task).build_model()
  found = sum(int(np.prod(w.shape)) for w in model.trainable_weights)
  assert f"{found:,}" == values["parameters"]


@pytest.mark.parametrize("name", FILES)
def test_is_listed(name):
  assert f"]({name})" in (ROOT / "README.md").read_text()
