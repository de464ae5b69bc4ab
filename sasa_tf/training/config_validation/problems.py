"""Problems of a configuration and their report."""

from __future__ import annotations

import dataclasses
import reprlib
from collections.abc import Iterable
from typing import Any

from sasa_tf.errors import ConfigError

# Longer lists hide the problems that matter.
MAX_REPORTED = 20
# More than a few misspelled keys.
_MANY_UNKNOWN_KEYS = 8

_REPR = reprlib.Repr()
_REPR.maxstring = _REPR.maxother = _REPR.maxlong = 60
_REPR.maxlist = _REPR.maxtuple = _REPR.maxdict = 4
_REPR.maxlevel = 3


def show(value: Any) -> str:
  """Returns a short representation of a received value, in YAML's words where they differ."""
  if value is None or isinstance(value, bool):
    return {None: "null", True: "true", False: "false"}[value]
  if isinstance(value, int) and value.bit_length() > 200:
    return f"an integer of {value.bit_length()} bits"
  return _REPR.repr(value).encode("ascii", "backslashreplace").decode("ascii")


@dataclasses.dataclass(frozen=True)
class Problem:
  """One problem.

  Attributes:
    text: the sentences that describe it, which name the key, the value and the fix.
    paths: dotted keys that are involved.
  """

  text: str
  paths: tuple[str, ...] = ()


def wrong_value(path: str, value: Any, source: str, expected: str, fix: str = "") -> Problem:
  """Returns the problem of a value that is not one of the expected ones.

  Args:
    path: dotted key.
    value: received value.
    source: file or flag that sets the value, "" for the experiment's default.
    expected: the valid values.
    fix: further sentences.
  """
  where = f" ({source})" if source else ""
  return Problem(
    f"{path}={show(value)}{where}: expected {expected}.{f' {fix}' if fix else ''}", (path,)
  )


def raise_problems(problems: Iterable[Problem]) -> None:
  """Raises one `ConfigError` that lists all problems; returns if there is none."""
  texts = list(dict.fromkeys(problem.text for problem in problems))
  if not texts:
    return
  if len(texts) == 1:
    raise ConfigError(texts[0])
  shown = texts[:MAX_REPORTED]
  if len(texts) > len(shown):
    shown.append(f"and {len(texts) - len(shown)} more")
  lines = "".join(f"\n  {text}" for text in shown)
  unknown = sum(": no key " in text for text in texts)
  if unknown >= _MANY_UNKNOWN_KEYS:
    count = (
      f"{len(texts)} problems, {unknown} of them keys that the experiment does not have (is a file "
      "of another experiment?)"
    )
  else:
    count = f"{len(texts)} problems"
  raise ConfigError(f"the configuration has {count}:{lines}")
