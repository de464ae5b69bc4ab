"""TensorFlow's messages about missing GPUs, CUDA stubs and oneDNN. Imports no TensorFlow."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

_VERBOSE = re.compile(r"--?(v|verbosity)=[1-9]")
_ENVIRONMENT_VARIABLE = "TF_CPP_MIN_LOG_LEVEL"


def silence(argv: Sequence[str] = ()) -> None:
  """Silences TensorFlow's log before it is imported.

  Its errors are raised as exceptions too. The environment variable TF_CPP_MIN_LOG_LEVEL and
  --verbosity=1 or more have precedence.

  Args:
    argv: flags of the program.
  """
  if any(map(_VERBOSE.fullmatch, argv)):
    os.environ.setdefault(_ENVIRONMENT_VARIABLE, "0")
  os.environ.setdefault(_ENVIRONMENT_VARIABLE, "3")
