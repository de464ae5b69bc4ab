"""The kind of device that operations are made for, which decides how much they do at a time."""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Iterator

import tensorflow as tf

# The one that computes first, where a process has several.
DEVICES = ("TPU", "GPU", "CPU")

_context: contextvars.ContextVar[str | None] = contextvars.ContextVar("target", default=None)


def target_device() -> str:
  """Returns "TPU", "GPU" or "CPU": what `use_target_device` says, else the best of this process."""
  named = _context.get()
  if named is not None:
    return named
  present = {device.device_type for device in tf.config.list_logical_devices()}
  return next((device for device in DEVICES if device in present), "CPU")


@contextlib.contextmanager
def use_target_device(device: str) -> Iterator[None]:
  """Makes the operations inside of the `with` statement for a device that may be elsewhere.

  It acts when operations are called or a `tf.function` is traced: around the export of a model
  that another machine will serve, or ahead-of-time compilation. It places nothing, and results do
  not depend on it beyond rounding.

  Args:
    device: "CPU", "GPU" or "TPU".

  Raises:
    ValueError: another name.
  """
  if device not in DEVICES:
    raise ValueError(f"use_target_device(device) must be one of {DEVICES}; received {device!r}.")
  token = _context.set(device)
  try:
    yield
  finally:
    _context.reset(token)
