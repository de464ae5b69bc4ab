"""What needs an optional extra says which, in one line."""

import ast
import importlib.util
import pathlib
import subprocess
import sys

import pytest

from sasa_tf import extras
from sasa_tf.errors import MissingExtraError
from sasa_tf.serving.formats.registry import FORMATS
from sasa_tf.serving.runtimes.registry import RUNTIMES

from .import_rules import sources

# Hides modules from the import system, as if they were not installed.
HIDE = """
import importlib.util, sys
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name in {hidden!r} else find(name, *rest)
"""


def test_optional_packages_are_those_of_the_extras():
  text = (pathlib.Path(__file__).parent.parent / "setup.py").read_text()
  for distribution, extra in extras.OPTIONAL.values():
    assert f'"{distribution}' in text, distribution
    assert f'"{extra}"' in text


def test_script_that_builds_the_kernels_is_installed():
  text = (pathlib.Path(__file__).parent.parent / "setup.py").read_text()
  assert '"sasa-build-kernels=sasa_tf.native.build:main"' in text


def test_installed_packages_pass():
  extras.require("this test", "tf_keras", "official")


def test_missing_packages_are_named_with_their_extras(monkeypatch):
  monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
  with pytest.raises(MissingExtraError) as caught:
    extras.require("sasa_tf.example", "tf_keras", "rich")
  assert str(caught.value) == (
    "sasa_tf.example needs rich, tf-keras. Install with: pip install 'sasa_tf[garden,report]'"
  )


def test_packages_without_their_dependencies_are_named(monkeypatch):
  monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
  with pytest.raises(MissingExtraError) as caught:
    extras.require("--format=tfjs", "tensorflowjs")
  assert str(caught.value) == (
    "--format=tfjs needs tensorflowjs. Install with: pip install --no-deps 'tensorflowjs>=4.22,<5'"
  )


@pytest.mark.parametrize(
  ("module", "hidden"),
  [
    ("sasa_tf.tf_keras", "tf_keras"),
    ("sasa_tf.registry_imports", "official"),
    ("sasa_tf.training", "official"),
    ("sasa_tf.serving", "official"),
  ],
)
def test_packages_report_their_missing_extra(module, hidden):
  program = HIDE.format(hidden={hidden}) + f"import {module}"
  result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
  last = result.stderr.strip().splitlines()[-1]
  assert result.returncode == 1
  assert last.startswith(f"sasa_tf.errors.MissingExtraError: {module} needs "), result.stderr
  assert last.endswith("pip install 'sasa_tf[garden]'")


def test_every_optional_package_is_required_by_name():
  calls = [
    node
    for source in sources("sasa_tf").values()
    for node in ast.walk(ast.parse(source))
    if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "require"
  ]
  names = {argument.value for call in calls for argument in call.args if hasattr(argument, "value")}
  # Formats and runtimes list theirs, and are checked when they are selected.
  for each in (*FORMATS.values(), *RUNTIMES.values()):
    names.update(each.requires)
  assert extras.OPTIONAL.keys() <= names
  modules = [
    argument.value
    for call in calls
    if ast.unparse(call.func) in ("extras.require", "program.require")
    for argument in call.args[ast.unparse(call.func) == "extras.require" :]
    if isinstance(argument, ast.Constant)
  ]
  assert len(modules) > 10 and set(modules) <= extras.OPTIONAL.keys()


def test_conversion_needs_no_extra_to_start():
  program = HIDE.format(hidden={"tqdm", "rich", "sklearn", "official"})
  program += "import sasa_tf.bin.make_tfrecords"
  assert subprocess.run([sys.executable, "-c", program]).returncode == 0


@pytest.mark.parametrize("name", ["train", "scaling"])
def test_programs_report_their_missing_extra_in_one_line(name):
  program = HIDE.format(hidden={"official"}) + f"import sasa_tf.bin.{name}"
  result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
  assert result.returncode == 2
  (line,) = result.stderr.strip().splitlines()
  assert line.startswith("error: this program needs ")
  assert line.endswith("pip install 'sasa_tf[garden]'")
