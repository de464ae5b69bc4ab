"""Private APIs of other libraries are used in `sasa_tf.compat` only."""

import ast

import pytest

from tests.import_rules import references, sources

PRIVATE_MODULES = ("keras.src", "tensorflow.compiler", "tensorflow.python", "tf_keras.src")
# Documented despite the underscore.
DOCUMENTED = {"_asdict", "_exit", "_fields", "_replace"}


def is_private(name):
  return name.startswith("_") and not name.endswith("__")


def is_own(attribute):
  """Returns whether it is an attribute of `self` or `cls`."""
  return isinstance(attribute.value, ast.Name) and attribute.value.id in ("self", "cls")


def defined_names(tree):
  """Returns the private names that a module defines: functions, classes, variables, attributes."""
  for node in ast.walk(tree):
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
      yield node.name
    elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
      yield node.id
    elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and is_own(node):
      yield node.attr


def private_uses(path, source, ours):
  """Returns a line for each use of a private module or attribute that is not in `ours`."""
  found = [
    f"{path}:{line}: {name}"
    for line, name in references(path, source)
    if name.startswith(PRIVATE_MODULES)
  ]
  for node in ast.walk(ast.parse(source)):
    if not isinstance(node, ast.Attribute) or is_own(node) or not is_private(node.attr):
      continue
    if node.attr not in ours | DOCUMENTED:
      found.append(f"{path}:{node.lineno}: {ast.unparse(node)}")
  return found


def test_private_apis_are_used_in_compat_only():
  files = {path: text for path, text in sources("sasa_tf").items() if "/compat/" not in path}
  ours = {name for text in files.values() for name in defined_names(ast.parse(text))}
  found = [use for path, text in files.items() for use in private_uses(path, text, ours)]
  assert not found, "move these to sasa_tf/compat, with a test each:\n" + "\n".join(found)


@pytest.mark.parametrize(
  "source",
  [
    "from tensorflow.python.ops import control_flow_util",
    "import keras.src.export",
    "optimizer._optimizer.minimize()",
  ],
)
def test_private_uses_are_found(source):
  assert len(private_uses("sasa_tf/x.py", source, set())) >= 1
  assert not private_uses("sasa_tf/x.py", "self._x = pair._replace(a=1)", set())
