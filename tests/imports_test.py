"""Imports go one way, and BUILD has the same dependencies."""

import ast
import json
import pathlib
import re
import subprocess
import sys

import pytest

from tests.build_file import BuildFile
from tests.import_rules import (
  PACKAGES,
  ROOT,
  forbidden_imports,
  keras_of_tensorflow,
  package_of_file,
  package_of_name,
  references,
  sources,
)

BUILD = BuildFile((ROOT / "BUILD").read_text(), ROOT)


def errors_of(check, files):
  return "\n".join(error for file in files.items() for error in check(*file))


def test_packages_import_only_what_they_may():
  files = sources("sasa_tf")
  assert len(files) > 50
  errors = errors_of(forbidden_imports, files)
  assert not errors, f"\n{errors}"


def test_no_keras_through_tensorflow():
  files = {**sources("sasa_tf", "tests"), "setup.py": (ROOT / "setup.py").read_text()}
  errors = errors_of(keras_of_tensorflow, files)
  assert not errors, f"\n{errors}"


def test_table_lists_exactly_the_packages_on_disk():
  assert {package_of_file(path) for path in sources("sasa_tf")} == set(PACKAGES)


def test_table_has_no_cycle():
  settled = set()
  while settled != set(PACKAGES):
    free = {name for name, package in PACKAGES.items() if package.internal <= settled} - settled
    assert free, f"the packages {sorted(set(PACKAGES) - settled)} import each other in a cycle"
    settled |= free


def dependencies(build):
  """Returns {package: the packages it depends on} of BUILD, without the root."""
  libraries = {name: deps for name, (_, deps) in build.libraries.items() if name in PACKAGES}
  return {name: deps - {"sasa_tf"} for name, deps in libraries.items()}


def test_deps_in_build_match_the_table():
  assert dependencies(BUILD) == {name: package.internal for name, package in PACKAGES.items()}


def test_every_source_is_in_the_library_of_its_package():
  for path in sources("sasa_tf"):
    owners = [name for name, (files, _) in BUILD.libraries.items() if path in files]
    assert owners == [package_of_file(path)], path


def test_every_test_file_has_a_target():
  files = {path for path in sources("tests") if path.endswith("_test.py")}
  assert "tests/imports_test.py" in files
  assert files == BUILD.tests
  assert {str(pathlib.PurePosixPath(path).parent) for path in files} <= set(BUILD.test_packages)


def test_programs_of_build_are_those_of_setup_and_no_library_has_their_name():
  setup = (ROOT / "setup.py").read_text()
  assigned = {
    statement.targets[0].id: statement.value
    for statement in ast.parse(setup).body
    if isinstance(statement, ast.Assign)
  }
  assert BUILD.programs == sorted(ast.literal_eval(assigned["PROGRAMS"]))
  assert not set(BUILD.programs) & set(BUILD.libraries)


def unreachable_packages(path, source, build=BUILD):
  """Returns an error for each package that a test imports and its target in BUILD cannot see."""
  folder = str(pathlib.PurePosixPath(path).parent)
  visible = build.reachable(build.test_packages.get(folder, ())) | {"sasa_tf"}
  return [
    f"{path}:{line}: uses {dotted}, which its target in BUILD does not see; it sees "
    f"{', '.join(sorted(visible))}. Test a package with what it may import itself, or add an "
    "exception for the directory, with its reason, to TESTS."
    for line, dotted in references(path, source)
    if dotted.split(".")[0] == "sasa_tf" and package_of_name(dotted) not in visible
  ]


def test_tests_import_only_what_their_targets_see():
  errors = errors_of(unreachable_packages, sources("tests"))
  assert not errors, f"\n{errors}"


def imported_tests(path, source):
  """Returns an error for each other test module that a test imports: its target does not see it."""
  own = path.removesuffix(".py").replace("/", ".")
  return [
    f"{path}:{line}: uses {dotted}, which its target in BUILD does not see. Move what both need to "
    "a module whose name does not end in _test."
    for line, dotted in references(path, source)
    if re.match(r"tests\.([a-z0-9_]+\.)*[a-z0-9_]+_test\b", dotted)
    and not f"{dotted}.".startswith(f"{own}.")
  ]


def test_tests_import_no_other_tests():
  errors = errors_of(imported_tests, sources("tests"))
  assert not errors, f"\n{errors}"


IMPORT_PROGRAM = """
import json, sys
before = set(sys.modules)
import sasa_tf
print(json.dumps(sorted(set(sys.modules) - before)))
"""


def test_importing_the_package_loads_nothing_else():
  output = subprocess.check_output([sys.executable, "-c", IMPORT_PROGRAM], cwd=ROOT)
  assert json.loads(output) == ["sasa_tf"]


# The checks must be able to fail.

DEFERRED = "def f():\n  from sasa_tf.errors import UserError"
FOR_TYPES = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n  from sasa_tf import layers"
REACHED = "import sasa_tf\n\nx = sasa_tf.layers.LocalSelfAttention2DBase"
BY_NAME = "import importlib\nimportlib.import_module('sasa_tf.layers')"
BUILDERS = "from sasa_tf.modeling import builders"


@pytest.mark.parametrize(
  ("path", "source", "error"),
  [
    ("sasa_tf/ops/x.py", "from sasa_tf import layers", ":1: ops imports sasa_tf.layers of"),
    (
      "sasa_tf/ops/x.py",
      "import sasa_tf.layers.keras_mixin",
      ":1: ops imports sasa_tf.layers.",
    ),
    (
      "sasa_tf/ops/x.py",
      "from ..layers import checks",
      ":1: ops imports sasa_tf.layers.checks",
    ),
    ("sasa_tf/ops/__init__.py", "from .. import layers", ":1: ops imports sasa_tf.layers of"),
    (
      "sasa_tf/ops/x.py",
      DEFERRED,
      ":2: ops imports sasa_tf.errors.UserError of the package err",
    ),
    ("sasa_tf/ops/x.py", FOR_TYPES, ":3: ops imports sasa_tf.layers of the package layers"),
    ("sasa_tf/ops/x.py", REACHED, ":3: ops imports sasa_tf.layers of"),
    ("sasa_tf/ops/x.py", BY_NAME, ":2: ops imports sasa_tf.layers of the package layers"),
    ("sasa_tf/ops/x.py", "import numpy as np", ":1: ops imports numpy. Besides the standard"),
    ("sasa_tf/layers/keras_mixin.py", "import keras", "layers may import tensorflow"),
    ("sasa_tf/modeling/resnet.py", BUILDERS, "of the package builders"),
    ("sasa_tf/modeling/resnet.py", "from . import builders", "of the package builders"),
    ("sasa_tf/configs/x.py", BUILDERS, "Of sasa_tf, configs may import extras"),
    ("sasa_tf/configs/x.py", "from sasa_tf import modeling", "Of sasa_tf, configs may import ex"),
    ("sasa_tf/data/x.py", "from official.core import exp_factory", "data imports official.core."),
    ("sasa_tf/errors.py", "import sasa_tf.ops", "errors imports sasa_tf.ops of the package ops"),
    (
      "sasa_tf/__init__.py",
      "from sasa_tf import ops",
      "sasa_tf imports sasa_tf.ops of the",
    ),
    (
      "sasa_tf/attic/x.py",
      "",
      "the package attic is not in PACKAGES, which has analysis, b",
    ),
  ],
)
def test_forbidden_import_is_reported_once(path, source, error):
  (received,) = forbidden_imports(path, source + "\n")
  assert received.startswith(f"{path}:")
  assert error in received


@pytest.mark.parametrize(
  ("path", "source"),
  [
    ("sasa_tf/ops/x.py", "import math, tensorflow as tf\nfrom sasa_tf.ops import window"),
    ("sasa_tf/ops/x.py", "from . import window\nimport sasa_tf\nprint(sasa_tf.__version__)"),
    ("sasa_tf/layers/x.py", "from sasa_tf import ops\nops.local_attention_2d()"),
    ("sasa_tf/modeling/builders/x.py", "import tf_keras\nfrom sasa_tf.tf_keras import SASAResNet"),
    ("sasa_tf/bin/x.py", f"from absl import app\n{BUILDERS}\nimport sasa_tf.ops"),
  ],
)
def test_allowed_import_is_not_reported(path, source):
  assert forbidden_imports(path, source) == []


@pytest.mark.parametrize(
  "source",
  [
    "import tensorflow as tf\ntf.keras.layers.Dense(1)",
    "import tensorflow as tf\ntf.compat.v2.keras",
    "\nfrom tensorflow import keras",
    "\nfrom tensorflow.keras import layers",
    "\nimport tensorflow.keras as k",
  ],
)
def test_keras_through_tensorflow_is_reported(source):
  (received,) = keras_of_tensorflow("tests/x.py", source)
  assert received.startswith("tests/x.py:2: tensorflow.")


def test_keras_by_name_is_not_reported():
  assert not keras_of_tensorflow("x.py", "import keras, tf_keras\ntf_keras.layers, keras.layers")


def test_test_beyond_its_package_is_reported():
  (received,) = unreachable_packages(
    "tests/ops/x_test.py", "import keras\nfrom sasa_tf import layers"
  )
  assert received.startswith("tests/ops/x_test.py:2: uses sasa_tf.layers, which its target")
  assert not unreachable_packages("tests/layers/x_test.py", "from sasa_tf import layers, ops")


@pytest.mark.parametrize(
  "source", ["from .b_test import f", "from tests.x import b_test", "import tests.x.b_test"]
)
def test_import_of_another_test_is_reported(source):
  assert len(imported_tests("tests/x/a_test.py", source)) == 1
  assert not imported_tests("tests/x/b_test.py", source)


def test_wrong_build_file_is_detected(tmp_path):
  for name in ("ops/a.py", "ops/b.py", "layers/a.py"):
    file = tmp_path / "sasa_tf" / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.touch()
  build = BuildFile(
    """
py_library(name = "ops", srcs = ["sasa_tf/ops/a.py"], deps = [":sasa_tf", ":layers"])
py_library(name = "layers", srcs = glob(["sasa_tf/**/*.py"], exclude = ["sasa_tf/ops/*.py"]))
py_library(name = "sasa_tf", srcs = [])
TESTS = {"tests/ops": ["ops"]}
[py_test(name = path) for path in glob(["tests/*_test.py"])]
[py_binary(name = path) for path in glob(["sasa_tf/ops/*.py"])]
""",
    tmp_path,
  )
  assert dependencies(build) == {"ops": {"layers"}, "layers": set(), "sasa_tf": set()}
  assert build.libraries["ops"][0] == {"sasa_tf/ops/a.py"}
  assert build.libraries["layers"][0] == {"sasa_tf/layers/a.py"}
  assert build.tests == set()
  assert build.programs == ["a", "b"]
  assert build.reachable(build.test_packages["tests/ops"]) == {"ops", "layers", "sasa_tf"}
