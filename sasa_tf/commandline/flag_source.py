"""Reads the flags of a program from its source, since importing TensorFlow takes seconds."""

from __future__ import annotations

import ast
import importlib.util
import pathlib
import re
from collections.abc import Iterator
from typing import NamedTuple

# Calls that define the flags of another module -> that module.
_DEFINED_BY_CALL = {"model_garden_flags.define_flags()": "official.common.flags"}
# Flags that modules of the programs have in common.
_ADOPTED = re.compile(r"flags\.adopt_module_key_flags\((\w+)\)")


class Flag(NamedTuple):
  """A flag, with its help text."""

  name: str
  help: str


def documentation(source: pathlib.Path) -> str:
  """Returns the docstring of a program."""
  return ast.get_docstring(ast.parse(source.read_text())) or ""


def flags_of(source: pathlib.Path) -> list[Flag]:
  """Returns the flags that a program defines, in the order of their definition.

  Flags of absl (`DEFINE_...` calls and tables of them), of argparse (`add_argument`) and those of
  Model Garden's train program are recognized. Help texts that are not constants are empty.
  """
  flags: dict[str, Flag] = {}
  nodes = ast.walk(ast.parse(source.read_text()))
  for node in sorted(
    (node for node in nodes if isinstance(node, ast.Call | ast.Tuple)),
    key=lambda node: (node.lineno, node.col_offset),
  ):
    for flag in [*_defined_elsewhere(node), *_definition(node)]:
      flags.setdefault(flag.name, flag)
  return list(flags.values())


def _defined_elsewhere(node: ast.Call | ast.Tuple) -> list[Flag]:
  """Returns the flags of another module that a call defines."""
  call = ast.unparse(node) if isinstance(node, ast.Call) else ""
  adopted = _ADOPTED.fullmatch(call)
  module = f"sasa_tf.bin.{adopted[1]}" if adopted else _DEFINED_BY_CALL.get(call)
  if not module:
    return []
  package, *names = module.split(".")
  spec = importlib.util.find_spec(package)
  if not spec or not spec.submodule_search_locations:
    return []
  return flags_of(pathlib.Path(spec.submodule_search_locations[0], *names).with_suffix(".py"))


def _definition(node: ast.Call | ast.Tuple) -> Iterator[Flag]:
  """Yields the flag of `DEFINE_x(name, ...)`, `(DEFINE_x, name, ...)` or `add_argument(name)`."""
  if isinstance(node, ast.Call):
    define, arguments = node.func, node.args
    named = [_constant(keyword.value) for keyword in node.keywords if keyword.arg == "help"]
  else:
    define, *arguments = node.elts or [node]
    named = []
  texts = [_constant(argument) for argument in arguments]
  if not isinstance(define, ast.Attribute) or not texts or not texts[0]:
    return
  # A default value, which may be a text too, precedes the help text.
  found = next((text for text in [*named, *reversed(texts[2:])] if text), "")
  if define.attr.startswith("DEFINE_"):
    yield Flag(texts[0], found)
  elif define.attr == "add_argument" and texts[0].startswith("--"):
    yield Flag(texts[0][2:], found)


def _constant(node: ast.expr) -> str | None:
  try:
    value = ast.literal_eval(node)
  except (ValueError, TypeError):
    return None
  return value if isinstance(value, str) else None
