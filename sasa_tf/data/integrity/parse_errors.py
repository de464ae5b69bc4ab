"""TensorFlow's errors for records that are not examples.

Their messages quote the record. If its bytes are not UTF-8 text, TensorFlow fails to create its
error, and a UnicodeDecodeError with the message arrives instead.
"""

from __future__ import annotations

import re

import tensorflow as tf

# What TensorFlow adds to the messages of its operations.
_NODE = re.compile(r"\{\{.*?\}\} ?| \[Op:\w*\].*")

PARSE_ERRORS = (tf.errors.InvalidArgumentError, tf.errors.DataLossError, UnicodeDecodeError)


def message_of(error: Exception) -> str:
  """Returns the message of one of PARSE_ERRORS, with the bytes that are no text as escapes."""
  if isinstance(error, UnicodeDecodeError):
    return bytes(error.object).decode("utf-8", "backslashreplace")
  return str(getattr(error, "message", error))


def reason(error: tf.errors.OpError) -> str:
  """Returns the first line of an error of an operation, without the names of nodes."""
  return first_line(error.message)


def first_line(message: str) -> str:
  """Returns the first line of such a message, without the names of nodes and the last period."""
  return _NODE.sub("", message.strip().splitlines()[0]).strip().rstrip(".")
