"""The modules of sasa_tf that a call passes through, in the order of their first function call."""

import pathlib
import sys
import threading

import sasa_tf

_ROOT = pathlib.Path(sasa_tf.__file__).parent


def modules_executed(function):
  """Calls a function and returns the modules of sasa_tf whose functions ran, in order.

  Counts Python functions called in this thread and in threads that it starts. Code that runs while
  a module is imported counts too; import what the walk needs, and call `function` once before, to
  measure a warm call.

  Args:
    function: takes no arguments.

  Returns:
    Paths relative to sasa_tf, without the suffix, such as "ops/dispatch".
  """
  files = {}  # a dict, because it keeps the order of insertion

  def record(frame, event, _):
    if event == "call":
      files.setdefault(frame.f_code.co_filename)

  threading.setprofile(record)
  sys.setprofile(record)
  try:
    function()
  finally:
    sys.setprofile(None)
    threading.setprofile(None)
  paths = [pathlib.Path(file) for file in files]
  return [
    path.relative_to(_ROOT).with_suffix("").as_posix()
    for path in paths
    if path.is_relative_to(_ROOT)
  ]
