"""Names the keys of the configuration in errors that are raised while a model is built."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping
from typing import Any

import tensorflow as tf

from sasa_tf.errors import ConfigError, UserError

MODEL = "task.model"
_MAX_KEYS = 6
_ERRORS = (
  *(ValueError, TypeError, KeyError, IndexError, AttributeError, ArithmeticError, AssertionError),
  *(NotImplementedError, MemoryError, RecursionError, tf.errors.OpError),
)
# What Keras and gin append to a message.
_FRAMES = re.compile(r"\n\s*(In call to configurable|Call arguments received by).*", re.DOTALL)
_KERAS = re.compile(r"Exception encountered when calling layer [^\n]*\n+")


@contextlib.contextmanager
def section_errors(section: str, config: Mapping[str, Any]) -> Iterator[None]:
  """Converts errors of a constructor to a `ConfigError` with the keys of its section.

  Args:
    section: dotted path of the section, such as "task.model.head".
    config: {key of the section: value}.

  Raises:
    ConfigError: the block raised an error of another type.
  """
  try:
    yield
  except UserError:
    raise
  except _ERRORS as error:
    raise ConfigError(describe(section, config, error)) from error


@contextlib.contextmanager
def model_errors(model_config: Any) -> Iterator[None]:
  """Converts errors of building a model to a `ConfigError`.

  Args:
    model_config: `params.task.model`.

  Raises:
    ConfigError: the block raised an error of another type.
  """
  with section_errors(MODEL, _leaves(model_config.as_dict())):
    yield


@contextlib.contextmanager
def without_gin_frames() -> Iterator[None]:
  """Removes the lines that gin appends to a `UserError` that passes a configurable function."""
  try:
    yield
  except UserError as error:
    kind = ConfigError if isinstance(error, ConfigError) else UserError
    raise kind(_FRAMES.sub("", str(error))) from error


def describe(section: str, config: Mapping[str, Any], error: Exception) -> str:
  """Returns the message of an error with the keys of a section that it concerns.

  Args:
    section: dotted path of the section.
    config: {key of the section, which may be dotted: value}.
    error: the error.
  """
  message = _message(error)
  named = [
    key for key in config if re.search(rf"(?<![\w.]){re.escape(key.split('.')[-1])}(?!\w)", message)
  ]
  values = ", ".join(f"{section}.{key}={config[key]!r}" for key in named[:_MAX_KEYS])
  kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
  message = message if message.endswith((".", "!", "?")) else f"{message}."
  fix = "" if named else f" Correct the values of {section}."
  return f"{values or section}: the model cannot be built: {kind}{message}{fix}"


def _message(error: Exception) -> str:
  text = error.message if isinstance(error, tf.errors.OpError) else str(error)
  text = _KERAS.sub("", _FRAMES.sub("", text)).strip()
  text = " ".join(text.split())
  return text if len(text) <= 600 else f"{text[:600]}..."


def _leaves(config: Mapping[str, Any], path: str = "") -> dict[str, Any]:
  result = {}
  for key, value in config.items():
    if isinstance(value, Mapping):
      result.update(_leaves(value, f"{path}{key}."))
    else:
      result[f"{path}{key}"] = value
  return result
