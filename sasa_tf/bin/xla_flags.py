"""Checks the names of XLA's flags in the environment, for which TensorFlow would abort.

Imports no TensorFlow. The names are text in TensorFlow's libraries. Only if one is not found there,
a process with TensorFlow decides, which takes seconds.
"""

from __future__ import annotations

import functools
import importlib.util
import mmap
import pathlib
import re
import shlex
import subprocess
import sys
from collections.abc import Iterable, Mapping

from sasa_tf.errors import UserError

VARIABLES = ("XLA_FLAGS", "TF_XLA_FLAGS")
# The library with most of the flags first.
_LIBRARIES = ("libtensorflow_framework.so*", "libtensorflow_cc.so*", "python/*.so")
_PROGRAM = (
  "import tensorflow as tf\ntf.function(lambda x: x + 1, jit_compile=True)(tf.constant(1))\n"
)
# The message of XLA before it aborts; it also rejects values.
_UNKNOWN = re.compile(r"Unknown flags? in \w+: (?P<flags>.*)")
_TIMEOUT_SECONDS = 50


def check(environment: Mapping[str, str]) -> None:
  """Checks the flags of `VARIABLES`.

  Args:
    environment: of this process.

  Raises:
    UserError: TensorFlow aborts because of them.
  """
  for variable in VARIABLES:
    value = environment.get(variable, "").strip()
    if value and (unknown := _missing_names(_names(value))):
      flags = _rejected(tuple(environment.items()))
      if flags is not None:
        raise UserError(
          f"the environment variable {variable}={value}: this version of TensorFlow rejects "
          f"{flags or ' '.join(f'--{name}' for name in unknown)}. Correct or unset it."
        )


def _names(value: str) -> list[str]:
  """Returns the names of the flags in a variable, or in the file that it names."""
  if not value.startswith("-"):
    try:
      value = pathlib.Path(value).read_text(encoding="utf-8", errors="replace")
    except OSError:
      return []
  try:
    words = shlex.split(value)
  except ValueError:  # an open quote
    words = value.split()
  return [word.lstrip("-").partition("=")[0] for word in words if word.startswith("-")]


def _missing_names(names: Iterable[str]) -> list[str]:
  """Returns the names that no library of TensorFlow has as a text; [] without TensorFlow."""
  spec = importlib.util.find_spec("tensorflow")
  missing = dict.fromkeys(names)
  if spec is None or not spec.submodule_search_locations:
    return []
  root = pathlib.Path(spec.submodule_search_locations[0])
  for pattern in _LIBRARIES:
    for library in root.glob(pattern):
      if not missing:
        return []
      with (
        library.open("rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content,
      ):
        for name in list(missing):
          if content.find(f"{name}\0".encode()) >= 0:
            del missing[name]
  return list(missing)


@functools.cache
def _rejected(environment: tuple[tuple[str, str], ...]) -> str | None:
  """Returns the flags that XLA rejects, None if it accepts all."""
  try:
    done = subprocess.run(
      [sys.executable, "-c", _PROGRAM],
      env={**dict(environment), "CUDA_VISIBLE_DEVICES": ""},
      capture_output=True,
      text=True,
      errors="replace",
      timeout=_TIMEOUT_SECONDS,
    )
  except (OSError, subprocess.TimeoutExpired):
    return None
  if not done.returncode:
    return None
  found = _UNKNOWN.search(done.stderr)
  return found["flags"].strip() if found else None
