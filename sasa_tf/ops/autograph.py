"""Keeps AutoGraph from converting this library's functions.

They have no control flow that depends on tensors' values. The conversion of all that an operation
calls takes more than a second when a `tf.function` is traced for the first time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import tensorflow as tf

_Function = TypeVar("_Function", bound=Callable[..., Any])


def without_autograph(function: _Function) -> _Function:
  """Decorator of functions that AutoGraph calls as they are, with all that they call."""
  return cast(_Function, tf.autograph.experimental.do_not_convert(function))
