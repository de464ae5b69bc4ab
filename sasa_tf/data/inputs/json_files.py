"""Reads JSON files that may be malformed, nested absurdly or hold absurd numbers."""

import json
import math
import os
from typing import Any

from sasa_tf.data.inputs.text_files import TextError, read_text

# Integers with more digits have no floating-point value.
_MAX_DIGITS = 300


def read_json(path: str | os.PathLike) -> Any:
  """Reads a JSON file in UTF-8, UTF-16 or UTF-32.

  Integers too long to convert are returned as infinity, so that the entry can be reported.

  Raises:
    TextError: if it is not JSON.
    OSError: if it cannot be read.
  """
  text = read_text(path)
  try:
    try:
      return json.loads(text)
    except json.JSONDecodeError:
      raise
    except ValueError:  # Python's limit for digits of an integer
      return json.loads(text, parse_int=_integer)
  except ValueError as error:
    raise TextError(f"not valid JSON ({error})") from error
  except RecursionError as error:
    raise TextError("not valid JSON (nested too deeply)") from error


def _integer(text: str) -> int | float:
  if len(text) <= _MAX_DIGITS:
    return int(text)
  return -math.inf if text.startswith("-") else math.inf
