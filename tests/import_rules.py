"""Who may import whom, and the check of a source file against it; nothing is executed."""

import ast
import importlib.util
import pathlib
import sys
from typing import NamedTuple

ROOT = pathlib.Path(__file__).parent.parent


class Room(NamedTuple):
  """What the files of a room may import, beside each other and the standard library."""

  rooms: set[str]
  packages: set[str]


# Each room may import the package root too, which holds the version and imports nothing. Keep
# BUILD's deps the same. Rooms are folders of sasa_tf, files of it, and modeling/builders.
ROOMS = {
  "sasa_tf": Room(set(), set()),  # sasa_tf/__init__.py
  "errors": Room(set(), set()),
  "native": Room({"errors"}, {"tensorflow"}),
  "ops": Room({"native"}, {"tensorflow"}),
  "layers": Room({"ops"}, {"tensorflow"}),  # no Keras: the faces bind theirs
  "modeling": Room({"layers"}, {"tensorflow"}),  # without builders
  "keras": Room({"layers", "modeling"}, {"keras"}),
  "tf_keras": Room({"layers", "modeling"}, {"tf_keras"}),
  "configs": Room(set(), {"official"}),
  "builders": Room({"configs", "tf_keras"}, {"official", "tensorflow", "tf_keras"}),
  "tasks": Room({"builders", "configs", "errors"}, {"numpy", "official", "tensorflow", "tf_keras"}),
  "registry_imports": Room({"builders", "configs", "tasks"}, {"official"}),
  "data": Room({"errors"}, {"numpy", "sklearn", "tensorflow", "tqdm"}),
  "training": Room(
    {"configs", "data", "errors", "tasks"},
    {"official", "orbit", "tensorflow", "tf_keras", "tqdm", "yaml"},
  ),
  "serving": Room(
    {"builders", "configs", "data", "errors"},
    {"PIL", "matplotlib", "numpy", "official", "tensorflow", "tf_keras"},
  ),
  "analysis": Room(
    {"errors", "keras", "layers", "modeling", "ops", "tf_keras"},
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
  "bin": Room(
    {
      "analysis",
      "builders",
      "configs",
      "data",
      "errors",
      "keras",
      "layers",
      "modeling",
      "ops",
      "registry_imports",
      "serving",
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


def room_of_file(path):
  """Returns the room of a file of sasa_tf, whether the table has it or not."""
  parts = pathlib.PurePosixPath(path).with_suffix("").parts
  if parts[1:3] == ("modeling", "builders"):
    return "builders"
  return parts[0] if parts[1] == "__init__" else parts[1]


def room_of_name(dotted):
  """Returns the room of a dotted name that begins with `sasa_tf`."""
  parts = dotted.split(".")
  if parts[1:3] == ["modeling", "builders"]:
    return "builders"
  return parts[1] if len(parts) > 1 and parts[1] in ROOMS else "sasa_tf"


def references(path, source):
  """Returns sorted [(line, dotted name)] of what is imported, or reached through an import.

  Imports inside of functions and under TYPE_CHECKING count: a room that needs another one's types
  depends on it. So do `import sasa_tf` with `sasa_tf.layers` below, and `import_module("...")`.
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
  """Returns a complaint for each room and each package that a file of sasa_tf may not import."""
  room = room_of_file(path)
  if room not in ROOMS:
    return [
      f"{path}:1: the room {room} is not in ROOMS, which has {_listed(ROOMS)}. Enter there what it "
      "may import (tests/import_rules.py), and give it a py_library in BUILD."
    ]
  allowed = ROOMS[room]
  complaints = {}  # The first line is enough for each room and package.
  for line, dotted in references(path, source):
    package = dotted.partition(".")[0]
    if package == "sasa_tf":
      other = room_of_name(dotted)
      if other not in {room, "sasa_tf", *allowed.rooms}:
        complaints.setdefault(
          (package, other),
          f"{path}:{line}: {room} imports {dotted} of the room {other}. Of sasa_tf, {room} may "
          f"import {_listed(allowed.rooms)}. Move the code to a room that may, or let the caller "
          "hand over what is needed; should the picture itself change, change ROOMS in "
          "tests/import_rules.py and deps in BUILD.",
        )
    elif package not in {*sys.stdlib_module_names, *allowed.packages}:
      complaints.setdefault(
        (package, None),
        f"{path}:{line}: {room} imports {dotted}. Beside the standard library, {room} may import "
        f"{_listed(allowed.packages)}. Do without it or move the code to a room that may; a new "
        "dependency goes into ROOMS in tests/import_rules.py and into setup.py.",
      )
  return list(complaints.values())


def keras_of_tensorflow(path, source):
  """Returns a complaint for each line that reaches a Keras through TensorFlow."""
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
