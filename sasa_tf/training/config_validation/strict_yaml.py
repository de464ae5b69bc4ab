"""Reads YAML and JSON as plain data, within limits of size and depth.

Unlike Model Garden's loader, it creates no Python objects but tuples, reads `1e-3` and `1.5e3` as
numbers, and `010`, `1:30` and dates as text.
"""

from __future__ import annotations

import os
import re
from typing import Any, ClassVar

import tensorflow as tf
import yaml

from sasa_tf.errors import ConfigError

# Model Garden's largest configurations have 30,000 characters, 300 nodes and a depth of 8.
MAX_CHARACTERS = 300_000
MAX_DEPTH = 40
MAX_NODES = 20_000

_TAG = "tag:yaml.org,2002:"
_INTEGER = r"[-+]?(?:0b[01_]+|0o[0-7_]+|0x[0-9a-fA-F_]+|0|[1-9][0-9_]*)"
_FLOAT = (
  r"[-+]?(?:[0-9][0-9_]*\.[0-9_]*(?:[eE][-+]?[0-9]+)?|\.[0-9][0-9_]*(?:[eE][-+]?[0-9]+)?"
  r"|[0-9][0-9_]*[eE][-+]?[0-9]+|\.(?:inf|Inf|INF))|\.(?:nan|NaN|NAN)"
)


class _Loader(yaml.SafeLoader):
  """Counts nodes and depth, and collects the keys that occur twice in a mapping."""

  # Without the types that PyYAML recognizes by their form, except null and booleans.
  yaml_implicit_resolvers: ClassVar = {
    first: [
      (tag, pattern)
      for tag, pattern in resolvers
      if tag.removeprefix(_TAG) not in ("int", "float", "timestamp")
    ]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
  }

  def __init__(self, text: str):
    super().__init__(text)
    self.duplicates: list[tuple[str, int]] = []
    self._depth = 0
    self._nodes = 0
    self._sizes: dict[int, int] = {}

  def compose_node(self, parent: Any, index: Any) -> Any:
    event = self.peek_event()
    if isinstance(event, yaml.AliasEvent):
      node = super().compose_node(parent, index)
      if id(node) not in self._sizes:
        raise yaml.composer.ComposerError(
          None, None, f"the alias *{event.anchor} contains itself", event.start_mark
        )
      self._count(self._sizes[id(node)], event)
      return node
    before = self._nodes
    self._count(1, event)
    self._depth += 1
    if self._depth > MAX_DEPTH:
      raise yaml.composer.ComposerError(
        None, None, f"nested deeper than {MAX_DEPTH} levels", event.start_mark
      )
    node = super().compose_node(parent, index)
    self._depth -= 1
    self._sizes[id(node)] = self._nodes - before
    return node

  def _count(self, nodes: int, event: Any) -> None:
    self._nodes += nodes
    if self._nodes > MAX_NODES:
      raise yaml.composer.ComposerError(
        None, None, f"more than {MAX_NODES} values", event.start_mark
      )

  def construct_object(self, node: Any, deep: bool = False) -> Any:
    try:
      return super().construct_object(node, deep)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
      # PyYAML's constructors expect the text of a node to have the form of its tag.
      tag = node.tag.replace(_TAG, "!!")
      detail = f" ({error})" if isinstance(error, ValueError) else ""
      raise yaml.constructor.ConstructorError(
        None,
        None,
        f"{str(node.value)[:60]!r} is no value of the tag {tag}{detail}",
        node.start_mark,
      ) from error

  def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
    seen = set()
    for key, _ in node.value:
      if isinstance(key, yaml.ScalarNode) and key.tag != f"{_TAG}merge":
        if (key.tag, key.value) in seen:
          self.duplicates.append((key.value, key.start_mark.line + 1))
        seen.add((key.tag, key.value))
    return super().construct_mapping(node, deep)


for _name, _pattern, _first in (
  ("int", _INTEGER, "-+0123456789"),
  ("float", _FLOAT, "-+0123456789."),
):
  _Loader.add_implicit_resolver(f"{_TAG}{_name}", re.compile(rf"^(?:{_pattern})$"), list(_first))
# Model Garden writes tuples with this tag.
_Loader.add_constructor(
  f"{_TAG}python/tuple", lambda loader, node: tuple(loader.construct_sequence(node, deep=True))
)


def parse(text: str, source: str) -> tuple[Any, list[str]]:
  """Parses one YAML or JSON document.

  Args:
    text: the document.
    source: file or flag, for the errors.

  Returns:
    The value, and warnings of keys that occur twice.

  Raises:
    ConfigError: the text is no valid document, with line and column, or exceeds a limit.
  """
  if len(text) > MAX_CHARACTERS:
    raise ConfigError(
      f"{source}: expected a configuration of at most {MAX_CHARACTERS:,} characters; received "
      f"{len(text):,}. Check that it is the right file."
    )
  loader = None
  try:
    loader = _Loader(text)
    value = loader.get_single_data()
  except yaml.MarkedYAMLError as error:
    raise ConfigError(_describe(error, source)) from error
  except (yaml.YAMLError, ValueError, OverflowError, RecursionError) as error:
    raise ConfigError(
      f"{source}: expected YAML or JSON with nested keys, which cannot be parsed: "
      f"{_one_line(str(error))}. Correct the text."
    ) from error
  finally:
    if loader is not None:
      loader.dispose()
  warnings = [
    f"{source}, line {line}: the key {key!r} occurs twice; the last value is used."
    for key, line in loader.duplicates
  ]
  return value, warnings


def read_file(path: str | os.PathLike) -> tuple[Any, list[str]]:
  """Reads a YAML or JSON file, see `parse`.

  Raises:
    ConfigError: the file cannot be read, is not UTF-8 text, or see `parse`.
  """
  if os.path.exists(path) and not os.path.isfile(path):  # a pipe would be read forever
    kind = "a directory" if os.path.isdir(path) else "a pipe or a device"
    raise ConfigError(f"{path}: expected a YAML file; received {kind}.")
  try:
    # May be remote.
    with tf.io.gfile.GFile(os.fspath(path), "rb") as file:
      data = file.read(4 * MAX_CHARACTERS + 1)
      size = file.size() if len(data) > 4 * MAX_CHARACTERS else len(data)
  except tf.errors.OpError as error:
    problem = error.message.removeprefix(f"{path}; ").splitlines()[0].rstrip(".")
    cure = "Check its path and its permissions."
    if "://" in os.fspath(path):
      cure = "Check the address, the network and the credentials, or pass a local copy."
    raise ConfigError(f"{path}: the file cannot be read: {problem}. {cure}") from error
  if len(data) > 4 * MAX_CHARACTERS:
    raise ConfigError(
      f"{path}: expected a configuration of at most {MAX_CHARACTERS:,} characters; received a "
      f"file of {size:,} bytes. Check that it is the right file."
    )
  try:
    text = data.decode("utf-8-sig")
  except UnicodeDecodeError as error:
    raise ConfigError(
      f"{path}: expected UTF-8 text; received the byte 0x{data[error.start]:02x} at position "
      f"{error.start}. Check that it is a YAML or JSON file, and save it as UTF-8."
    ) from error
  return parse(text, str(path))


def _describe(error: yaml.MarkedYAMLError, source: str) -> str:
  mark = error.problem_mark or error.context_mark
  where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
  parts = [error.problem or ""]
  if error.context and not error.context.startswith("while"):
    parts.insert(0, error.context)
  problem = _one_line(" ".join(parts))
  if "python/" in problem:
    problem += " (Python objects are not created from a configuration)"
  fix = "Correct the text there."
  if "alias" in problem or "cannot start any token" in problem:
    fix = "Correct it there; text that starts with *, &, !, % or @ needs quotes."
  return (
    f"{source}: expected YAML or JSON with nested keys, which cannot be parsed: {where}{problem}. "
    f"{fix}"
  )


def _one_line(text: str) -> str:
  line = " ".join(text.split())
  line = line if len(line) <= 300 else f"{line[:300]}..."
  return line.encode("ascii", "backslashreplace").decode("ascii").rstrip(".")
