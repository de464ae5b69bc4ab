"""Parses the value of --params_override: `a.b=1,c.d=2`, YAML, JSON, or the name of a file."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import Any

from sasa_tf.errors import ConfigError
from sasa_tf.training.config_validation import strict_yaml
from sasa_tf.training.config_validation.problems import show

_ASSIGNMENT = re.compile(
  r"\s*(?P<key>[^\s=:{}\[\],'\"]+)(?:\[(?P<index>\d+)\])?\s*=(?P<value>.*)", re.DOTALL
)
_KEY = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")
_QUOTED = re.compile(r"'(?:[^']|'')*'|\"(?:[^\"\\]|\\.)*\"", re.DOTALL)
_MAX_INDEX = 1000
_CLOSING = {"[": "]", "{": "}"}


def parse(text: str, source: str) -> tuple[Any, list[str]]:
  """Parses overrides.

  Args:
    text: "a.b=1,c.d=2" with YAML values, a YAML or JSON document, or the name of a file with one.
    source: flag, for the errors.

  Returns:
    Nested dictionaries, and warnings.

  Raises:
    ConfigError: the text is none of these.
  """
  if len(text) > strict_yaml.MAX_CHARACTERS:
    strict_yaml.parse(text, source)  # raises
  if _ASSIGNMENT.match(text):
    return _parse_assignments(text, source)
  value, warnings = strict_yaml.parse(text, source)
  if isinstance(value, str) and len(value) < 4096 and "\0" not in text and os.path.isfile(text):
    return strict_yaml.read_file(text)
  if not isinstance(value, dict):
    raise ConfigError(
      f"{source}: expected 'a.b=1,c.d=2', YAML or JSON with nested keys, or the name of such a "
      f"file; received {show(text)}, which cannot be parsed: it has no '=' and is no existing file."
    )
  return value, warnings


def _parse_assignments(text: str, source: str) -> tuple[dict[str, Any], list[str]]:
  tree: dict[str, Any] = {}
  arrays: dict[tuple[str, ...], dict[int, Any]] = {}
  warnings: list[str] = []
  previous = ""
  for part in _split(text):
    match = _ASSIGNMENT.fullmatch(part)
    if not match or not _KEY.fullmatch(match["key"]) or match["key"].count(".") > 30:
      hint = f" Text with a comma, as in {previous}, needs quotes." if previous else ""
      if match and _KEY.fullmatch(key := match["key"].lstrip("-").replace("-", "_")):
        hint = f" Keys have no hyphens: write {key}."
      raise ConfigError(
        f"{source}: expected 'a.b=1,c.d=2'; received {show(part.strip())}, which cannot be parsed: "
        f"it is not a key, '=' and a value.{hint}"
      )
    key, keys = match["key"], tuple(match["key"].split("."))
    value, nested = strict_yaml.parse(match["value"], f"{source}, {key}")
    warnings += nested
    if match["index"] is None:
      _insert(tree, keys, value, source, warnings)
    else:
      arrays.setdefault(keys, {})[int(match["index"])] = value
    previous = key
  for keys, elements in arrays.items():
    name = ".".join(keys)
    if sorted(elements) != list(range(len(elements))) or len(elements) > _MAX_INDEX:
      raise ConfigError(
        f"{source}: expected all elements of {name} from {name}[0]; received the indices "
        f"{show(sorted(elements))}. Set the complete list, as in {name}=[1,2]."
      )
    _insert(tree, keys, [elements[i] for i in range(len(elements))], source, warnings)
  return tree, warnings


def _insert(
  tree: dict[str, Any], keys: tuple[str, ...], value: Any, source: str, warnings: list[str]
) -> None:
  """Sets a nested key."""
  for depth, key in enumerate(keys[:-1]):
    tree = tree.setdefault(key, {})
    if not isinstance(tree, dict):
      parent = ".".join(keys[: depth + 1])
      raise ConfigError(
        f"{source}: sets both {parent} and {'.'.join(keys)}, which is a part of it. Set one of "
        "them."
      )
  last = keys[-1]
  if isinstance(tree.get(last), dict) and not isinstance(value, dict):
    name = ".".join(keys)
    raise ConfigError(f"{source}: sets both {name} and a part of it. Set one of them.")
  if last in tree:
    if isinstance(tree[last], dict) and isinstance(value, dict):
      tree[last] = {**tree[last], **value}
      return
    warnings.append(f"{source}: {'.'.join(keys)} occurs twice; the last value is used.")
  tree[last] = value


def _split(text: str) -> Iterator[str]:
  """Splits at the commas outside of quotes and brackets."""
  start, position, closing, token_start = 0, 0, [], True
  while position < len(text):
    character = text[position]
    # Elsewhere, as in don't, a quote is a part of the text.
    quoted = _QUOTED.match(text, position) if token_start else None
    if quoted:
      position, token_start = quoted.end(), False
      continue
    if character in _CLOSING:
      closing.append(_CLOSING[character])
    elif closing and character == closing[-1]:
      closing.pop()
    elif character == "," and not closing:
      yield text[start:position]
      start = position + 1
    token_start = character in "=,:[{" or (token_start and character.isspace())
    position += 1
  yield text[start:]
