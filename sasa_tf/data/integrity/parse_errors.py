"""TensorFlow's errors for records that are not examples.

Their messages quote the record. If its bytes are not UTF-8 text, TensorFlow fails to create its
error, and a UnicodeDecodeError with the message arrives instead.
"""

from __future__ import annotations

import tensorflow as tf

PARSE_ERRORS = (tf.errors.InvalidArgumentError, tf.errors.DataLossError, UnicodeDecodeError)


def message_of(error: Exception) -> str:
  """Returns the message of one of PARSE_ERRORS, with the bytes that are no text as escapes."""
  if isinstance(error, UnicodeDecodeError):
    return bytes(error.object).decode("utf-8", "backslashreplace")
  return str(getattr(error, "message", error))
