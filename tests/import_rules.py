"""The allowed imports of each package, and the static check of a source file against them."""

import ast
import importlib.util
import pathlib
import sys
from typing import NamedTuple

ROOT = pathlib.Path(__file__).parent.parent


class Package(NamedTuple):
  """What the files of a package may import besides each other and the standard library."""

  internal: set[str]
  external: set[str]


# Every package may also import the root, which holds the version and imports nothing. BUILD has
# the same deps. A package is a directory of sasa_tf, a module in its root, or modeling/builders.
PACKAGES = {
  "sasa_tf": Package(set(), set()),  # sasa_tf/__init__.py
  "errors": Package(set(), set()),
  "extras": Package({"errors"}, set()),
  "outputs": Package({"errors"}, {"yaml"}),  # in plain_yaml alone, for the programs of [report]
  "reporting": Package({"errors", "extras", "outputs"}, {"matplotlib", "rich", "tqdm"}),
  "compat": Package({"errors"}, {"keras", "numpy", "official", "orbit", "tensorflow", "tf_keras"}),
  "native": Package({"compat", "errors"}, {"tensorflow"}),
  "ops": Package({"compat", "native"}, {"tensorflow"}),
  "collectives": Package({"compat", "errors", "native", "ops"}, {"tensorflow"}),
  "layers": Package({"compat", "ops"}, {"tensorflow"}),  # no Keras: the bindings add it
  "modeling": Package({"compat", "errors", "layers"}, {"numpy", "tensorflow"}),  # without builders
  "keras": Package({"extras", "layers", "modeling"}, {"keras"}),
  "tf_keras": Package({"extras", "layers", "modeling"}, {"tf_keras"}),
  "configs": Package({"extras"}, {"official"}),
  "builders": Package(
    {"configs", "errors", "extras", "tf_keras"}, {"absl", "official", "tensorflow", "tf_keras"}
  ),
  "tasks": Package(
    {"builders", "compat", "configs", "errors", "extras"},
    {"numpy", "official", "tensorflow", "tf_keras"},
  ),
  "registry_imports": Package({"builders", "configs", "extras", "tasks"}, {"official"}),
  "data": Package(
    # google.protobuf comes with TensorFlow.
    {"errors", "extras", "outputs", "reporting"},
    {"PIL", "google", "numpy", "sklearn", "tensorflow"},
  ),
  "training": Package(
    {
      "builders",
      "collectives",
      "compat",
      "configs",
      "data",
      "errors",
      "extras",
      "layers",
      "modeling",
      "outputs",
      "reporting",
      "tasks",
    },
    {"absl", "official", "orbit", "tensorflow", "tf_keras", "yaml"},
  ),
  "pretrained": Package(
    {"compat", "errors", "extras", "keras", "modeling", "tf_keras"},
    {"h5py", "keras", "numpy", "official", "tensorflow", "tf_keras"},  # h5py comes with Keras
  ),
  # No TensorFlow: the study's own process must not use the GPUs of its trainings.
  "studies": Package({"errors", "extras", "outputs", "reporting"}, {"matplotlib", "scipy", "yaml"}),
  "run_reports": Package({"errors", "extras", "outputs", "reporting"}, {"matplotlib", "yaml"}),
  "serving": Package(
    {
      "builders",
      "compat",
      "configs",
      "data",
      "errors",
      "extras",
      "keras",
      "layers",
      "modeling",
      "ops",
      "outputs",
      "reporting",
    },
    {
      "PIL",
      "ai_edge_litert",
      "google",
      "keras",
      "matplotlib",
      "numpy",
      "official",
      "onnx",
      "onnxruntime",
      "openvino",
      "pycocotools",
      "tensorflow",
      "tensorflowjs",
      "tf2onnx",
      "tf_keras",
    },
  ),
  "analysis": Package(
    {
      "benchmarks",
      "builders",
      "compat",
      "configs",
      "data",
      "errors",
      "extras",
      "keras",
      "layers",
      "modeling",
      "ops",
      "outputs",
      "registry_imports",
      "reporting",
      "serving",
      "tf_keras",
      "training",
    },
    {
      "jax",
      "jaxlib",
      "keras",
      "libtpu",
      "matplotlib",
      "numpy",
      "rich",
      "tensorflow",
      "tf_keras",
      "tqdm",
    },
  ),
  "benchmarks": Package(
    {
      "compat",
      "errors",
      "extras",
      "keras",
      "layers",
      "modeling",
      "ops",
      "outputs",
      "reporting",
      "serving",
      "tf_keras",
      "training",
    },
    {"keras", "matplotlib", "numpy", "official", "orbit", "rich", "tensorflow", "tf_keras", "tqdm"},
  ),
  "commandline": Package({"errors"}, set()),  # it runs programs as `python -m` does
  "diagnostics": Package({"ops"}, {"numpy", "tensorflow"}),
  "bin": Package(
    {
      "analysis",
      "benchmarks",
      "builders",
      "commandline",
      "compat",
      "configs",
      "data",
      "diagnostics",
      "errors",
      "extras",
      "keras",
      "layers",
      "modeling",
      "ops",
      "outputs",
      "pretrained",
      "registry_imports",
      "reporting",
      "run_reports",
      "serving",
      "studies",
      "tasks",
      "tf_keras",
      "training",
    },
    {"absl", "gin", "official"},
  ),
}


def sources(*folders):
  """Returns {path relative to the checkout: source} of the Python files in folders of it."""
  files = (file for folder in folders for file in sorted(ROOT.glob(f"{folder}/**/*.py")))
  return {file.relative_to(ROOT).as_posix(): file.read_text() for file in files}


def package_of_file(path):
  """Returns the package of a file of sasa_tf, whether or not the table lists it."""
  parts = pathlib.PurePosixPath(path).with_suffix("").parts
  if parts[1:3] == ("modeling", "builders"):
    return "builders"
  return parts[0] if parts[1] == "__init__" else parts[1]


def package_of_name(dotted):
  """Returns the package of a dotted name that begins with `sasa_tf`."""
  parts = dotted.split(".")
  if parts[1:3] == ["modeling", "builders"]:
    return "builders"
  return parts[1] if len(parts) > 1 and parts[1] in PACKAGES else "sasa_tf"


def references(path, source):
  """Returns sorted [(line, dotted name)] of what is imported, or reached through an import.

  Imports inside of functions and under TYPE_CHECKING count, because a package that needs another
  one's types depends on it. So do `import sasa_tf` with `sasa_tf.layers` below it, and
  `import_module("...")`.
  """
  package = ".".join(pathlib.PurePosixPath(path).parent.parts)
  nodes = list(ast.walk(ast.parse(source, path)))
  found, local_names = [], {}
  for node in nodes:
    if isinstance(node, ast.Import):
      for alias in node.names:
        found.append((node.lineno, alias.name))
        first = alias.name.partition(".")[0]
        local_names[alias.asname or first] = alias.name if alias.asname else first
    elif isinstance(node, ast.ImportFrom):
      module = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
      for alias in node.names:
        found.append((node.lineno, f"{module}.{alias.name}"))
        local_names[alias.asname or alias.name] = f"{module}.{alias.name}"
    elif isinstance(node, ast.Call) and node.args:
      function = ast.unparse(node.func).rpartition(".")[2]
      name = getattr(node.args[0], "value", None)
      if function in ("__import__", "import_module") and isinstance(name, str):
        found.append((node.lineno, importlib.util.resolve_name(name, package)))
  for node in nodes:
    if isinstance(node, ast.Attribute):
      first, _, rest = ast.unparse(node).partition(".")
      if first in local_names:
        found.append((node.lineno, f"{local_names[first]}.{rest}"))
  return sorted(found)


def forbidden_imports(path, source):
  """Returns an error for each package that a file of sasa_tf must not import."""
  package = package_of_file(path)
  if package not in PACKAGES:
    return [
      f"{path}:1: the package {package} is not in PACKAGES, which has {_listed(PACKAGES)}. List "
      "what it may import in tests/import_rules.py, and add a py_library to BUILD."
    ]
  allowed = PACKAGES[package]
  errors = {}  # Only the first line of each package.
  for line, dotted in references(path, source):
    top = dotted.partition(".")[0]
    if top == "sasa_tf":
      other = package_of_name(dotted)
      if other not in {package, "sasa_tf", *allowed.internal}:
        errors.setdefault(
          (top, other),
          f"{path}:{line}: {package} imports {dotted} of the package {other}. Of sasa_tf, "
          f"{package} may import {_listed(allowed.internal)}. Move the code to a package that may, "
          "or pass in what is needed; to change the dependencies, edit PACKAGES in "
          "tests/import_rules.py and deps in BUILD.",
        )
    elif top not in {*sys.stdlib_module_names, *allowed.external}:
      errors.setdefault(
        (top, None),
        f"{path}:{line}: {package} imports {dotted}. Besides the standard library, {package} may "
        f"import {_listed(allowed.external)}. Remove the import or move the code to a package that "
        "may; add a new dependency to PACKAGES in tests/import_rules.py and to setup.py.",
      )
  return list(errors.values())


def keras_of_tensorflow(path, source):
  """Returns an error for each line that reaches Keras through TensorFlow."""
  lines = {
    line: dotted
    for line, dotted in references(path, source)
    if dotted.startswith("tensorflow.") and "keras" in dotted.split(".")
  }
  return [
    f"{path}:{line}: {dotted} is Keras 3 or tf_keras, depending on the environment. Import `keras` "
    "or `tf_keras` by name; layers and models take theirs from `self._keras`."
    for line, dotted in lines.items()
  ]


def _listed(names):
  return ", ".join(sorted(names)) or "nothing"
