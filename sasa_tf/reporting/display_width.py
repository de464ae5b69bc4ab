"""Width of text in a terminal, where CJK characters take two columns and marks none."""

import unicodedata


def display_width(text: str) -> int:
  """Returns the number of columns that a text takes in a terminal."""
  return sum(map(_columns, text))


def padded(text: str, width: int) -> str:
  """Returns a text with spaces up to a number of columns."""
  return text + " " * (width - display_width(text))


def _columns(character: str) -> int:
  if unicodedata.category(character) in ("Mn", "Me", "Cf"):
    return 0
  return 2 if unicodedata.east_asian_width(character) in ("W", "F") else 1
