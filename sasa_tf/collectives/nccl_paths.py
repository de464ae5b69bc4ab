"""Where NCCL is: in TensorFlow, in NVIDIA's Python package, or installed in the system."""

from __future__ import annotations

import importlib.util
import os
import pathlib

import tensorflow as tf

ENVIRONMENT_VARIABLE = "SASA_TF_NCCL"

_NAME = "libnccl.so.2"


def nccl_paths() -> list[str]:
  """Returns the libraries to look for NCCL in, in this order.

  If $SASA_TF_NCCL is set, only that one. Else TensorFlow's own library, which contains the NCCL
  that MirroredStrategy uses; the library of `nvidia-nccl-cu12`, which `tensorflow[and-cuda]`
  installs; and what the system's loader finds, for instance in $LD_LIBRARY_PATH.
  """
  if chosen := os.environ.get(ENVIRONMENT_VARIABLE):
    return [chosen]
  paths = [os.path.join(tf.sysconfig.get_lib(), "libtensorflow_framework.so.2")]
  try:
    package = importlib.util.find_spec("nvidia.nccl")
  except ModuleNotFoundError:
    package = None
  for folder in (package and package.submodule_search_locations) or ():
    paths.append(str(pathlib.Path(folder, "lib", _NAME)))
  return [*paths, _NAME]
