"""Messages of other libraries while a program starts. Imports no TensorFlow.

TensorFlow logs missing GPUs, CUDA stubs and oneDNN. On Python 3.10, google.api_core, which Model
Garden imports, warns of Python's age.
"""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Sequence

_VERBOSE = re.compile(r"--?(v|verbosity)=[1-9]")
_ENVIRONMENT_VARIABLE = "TF_CPP_MIN_LOG_LEVEL"


def silence(argv: Sequence[str] = ()) -> None:
  """Silences the messages before the libraries are imported.

  TensorFlow's errors are raised as exceptions too. The environment variable TF_CPP_MIN_LOG_LEVEL,
  Python's options for warnings, and --verbosity=1 or more have precedence.

  Args:
    argv: flags of the program.
  """
  if any(map(_VERBOSE.fullmatch, argv)):
    os.environ.setdefault(_ENVIRONMENT_VARIABLE, "0")
  else:
    warnings.filterwarnings("ignore", category=FutureWarning, module="google.api_core", append=True)
  os.environ.setdefault(_ENVIRONMENT_VARIABLE, "3")
