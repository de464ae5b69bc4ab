"""Types and ranges of values and names that come from annotation files."""

import math
import re
import reprlib
import unicodedata
from typing import Any

MAX_INT64 = 2**63 - 1
# Sides of an image: PNG cannot be larger.
MAX_SIDE = 2**31 - 1
# Largest integer up to which floating-point numbers represent all integers.
_MAX_EXACT = 2**53

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?|[+-]?inf(inity)?|[+-]?nan", re.I | re.A)
_FLAGS = {"0": False, "1": True, "false": False, "true": True, "": False}
_DRIVE = re.compile(r"[A-Za-z]:")

_short = reprlib.Repr()
_short.maxstring = _short.maxother = _short.maxlong = 60


def shown(value: Any) -> str:
  """Returns one short line that describes a value in a message."""
  return one_line(_short.repr(value))


def one_line(text: str) -> str:
  r"""Escapes line breaks and other control characters, "\n" as "\\n"."""
  if text.isprintable():
    return text
  return "".join(
    character
    if unicodedata.category(character) not in ("Cc", "Zl", "Zp")
    else character.encode("unicode_escape").decode("ascii")
    for character in text
  )


def parse_number(text: str | None) -> float | None:
  """Returns the number that a text states, also inf and nan; None if it states none."""
  text = (text or "").strip()
  return float(text) if _NUMBER.fullmatch(text) else None


def as_number(value: Any) -> float | None:
  """Returns a number of a JSON file as float, infinity if it is too large; None for other types."""
  if type(value) not in (int, float):
    return None
  try:
    return float(value)
  except OverflowError:
    return math.inf if value > 0 else -math.inf


def as_integer(value: Any, low: int, high: int) -> int | None:
  """Returns an integer of a JSON file, also if it is written as 7.0; None if out of range."""
  if type(value) is float and value.is_integer() and abs(value) <= _MAX_EXACT:
    value = int(value)
  return value if type(value) is int and low <= value <= high else None


def as_flag(value: Any) -> bool | None:
  """Returns a boolean that is written as 0, 1, true or false, also as text.

  None, for a missing value, and an empty text are False. Other values give None.
  """
  if value is None or isinstance(value, bool):
    return bool(value)
  if isinstance(value, str):
    return _FLAGS.get(value.strip().lower())
  number = as_integer(value, 0, 1)
  return None if number is None else bool(number)


def as_name(value: Any) -> str | None:
  """Returns a name with single spaces instead of line breaks, byte order marks and white space.

  Returns None for other types, empty names, and names with control characters or lone surrogates,
  which no text file can hold.
  """
  if not isinstance(value, str):
    return None
  name = " ".join(value.replace("\ufeff", " ").split())
  invalid = any(unicodedata.category(character) in ("Cc", "Cs") for character in name)
  return None if invalid or not name else name


def file_name_error(name: Any) -> str | None:
  """Returns why the file_name of an annotation cannot be used, None if it can.

  Args:
    name: a path relative to the folder of the images, with / as separator.
  """
  if not isinstance(name, str) or not name:
    return "has no file_name"
  if any(unicodedata.category(character) == "Cc" for character in name):
    return f"has a file_name with control characters, {shown(name)}"
  try:
    name.encode("utf-8", "surrogateescape")
  except UnicodeEncodeError:
    return f"has a file_name that is not valid Unicode, {shown(name)}"
  if name.startswith("/") or _DRIVE.match(name):
    return (
      f"has an absolute file_name, {shown(name)}; expected a path relative to the folder of the "
      "images"
    )
  if ".." in name.split("/"):
    return f"has a file_name outside of the folder of the images, {shown(name)}"
  return None
