"""Names the keys of the configuration in errors of what is built from it."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping
from typing import Any

import tensorflow as tf
from absl import logging

from sasa_tf.errors import ConfigError, UserError

MODEL = "task.model"
_MAX_KEYS = 6
_ERRORS = (
  *(ValueError, TypeError, KeyError, IndexError, AttributeError, ArithmeticError, AssertionError),
  *(NotImplementedError, MemoryError, RecursionError, tf.errors.OpError),
)
_MACHINE_ERRORS = (
  *(tf.errors.AbortedError, tf.errors.CancelledError, tf.errors.DeadlineExceededError),
  *(tf.errors.ResourceExhaustedError, tf.errors.UnavailableError),
)
# What Keras and gin append to a message.
_FRAMES = re.compile(r"\n\s*(In call to configurable|Call arguments received by).*", re.DOTALL)
_CAUSE = re.compile(r"^\s+(\w*(?:Error|Exception): )", re.MULTILINE)  # after AutoGraph's frames
_NODE = re.compile(r"'\{\{node [^}]*\}\} = (\w+)\[.*?\]\(.*?\)'", re.DOTALL)
# Shorter texts occur in messages by chance.
_MIN_TEXT = 4
_KERAS = re.compile(r"Exception encountered when calling layer [^\n]*\n+")


@contextlib.contextmanager
def section_errors(
  section: str, config: Mapping[str, Any], what: str = "the model"
) -> Iterator[None]:
  """Converts errors of a constructor to a `ConfigError` with the keys of its section.

  Errors of the machine (memory of a device, lost workers) are not changed. The traceback is logged
  at level DEBUG.

  Args:
    section: dotted path of the section, such as "task.model.head".
    config: {key of the section: value}, which may be nested.
    what: what the section configures.

  Raises:
    ConfigError: the block raised an error of another type.
  """
  try:
    yield
  except (UserError, *_MACHINE_ERRORS):
    raise
  except _ERRORS as error:
    logging.debug("%s cannot be built", what, exc_info=True)
    raise ConfigError(describe(section, _leaves(config), error, what)) from error


@contextlib.contextmanager
def model_errors(model_config: Any) -> Iterator[None]:
  """Converts errors of building a model to a `ConfigError`.

  Args:
    model_config: `params.task.model`.

  Raises:
    ConfigError: the block raised an error of another type.
  """
  with section_errors(MODEL, model_config.as_dict()):
    yield


@contextlib.contextmanager
def without_gin_frames() -> Iterator[None]:
  """Removes the lines that gin appends to a `UserError` that passes a configurable function."""
  try:
    yield
  except UserError as error:
    kind = ConfigError if isinstance(error, ConfigError) else UserError
    raise kind(_FRAMES.sub("", str(error))) from error


def describe(
  section: str, config: Mapping[str, Any], error: Exception, what: str = "the model"
) -> str:
  """Returns the message of an error with the keys of a section that it concerns.

  Args:
    section: dotted path of the section.
    config: {key of the section, which may be dotted: value}.
    error: the error.
    what: what the section configures.
  """
  message = _message(error)
  named = [key for key, value in config.items() if _is_named(key, value, message)]
  types = [key for key in config if key.split(".")[-1] == "type"] if "." in section else []
  shown = named or types
  values = ", ".join(f"{section}.{key}={config[key]!r}" for key in shown[:_MAX_KEYS])
  kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
  message = message if message.endswith((".", "!", "?")) else f"{message}."
  fix = "" if named else f" Correct the values of {section}."
  return f"{values or section}: {what} cannot be built: {kind}{message}{fix}"


def _is_named(key: str, value: Any, message: str) -> bool:
  """Returns whether a message contains the last part of a key, or a text that is its value."""
  words = [key.rsplit(".", maxsplit=1)[-1]]
  if isinstance(value, str) and len(value) >= _MIN_TEXT:
    words.append(value)
  return any(re.search(rf"(?<![\w.]){re.escape(word)}(?!\w)", message) for word in words)


def _message(error: Exception) -> str:
  text = error.message if isinstance(error, tf.errors.OpError) else str(error)
  text = _KERAS.sub("", _FRAMES.sub("", text)).strip()
  if text.startswith("in user code:") and (causes := list(_CAUSE.finditer(text))):
    text = text[causes[-1].start(1) :].removeprefix(f"{type(error).__name__}: ")
  text = " ".join(_NODE.sub(r"\1", text).split())
  return text if len(text) <= 600 else f"{text[:600]}..."


def _leaves(config: Mapping[str, Any], path: str = "") -> dict[str, Any]:
  """Returns {dotted key: value} of the sections that are in use."""
  result = {}
  chosen = config.get("type")
  has_choice = isinstance(chosen, str) and isinstance(config.get(chosen), Mapping)
  for key, value in config.items():
    if not isinstance(value, Mapping):
      result[f"{path}{key}"] = value
    elif key == chosen or not has_choice:
      result.update(_leaves(value, f"{path}{key}."))
  return result
