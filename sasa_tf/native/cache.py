"""The path of the built library: one directory for each TensorFlow, machine and source state."""

from __future__ import annotations

import hashlib
import os
import pathlib
import platform
import tempfile

import tensorflow as tf

ENVIRONMENT_VARIABLE = "SASA_TF_NATIVE_CACHE"
LIBRARY, RECORD = "libsasa_tf.so", "build.json"

# Include paths are relative to this directory.
SOURCE_ROOT = pathlib.Path(__file__).parent

_BUILD_SCRIPT = pathlib.Path(__file__).with_name("build.py")


def cache_directory() -> pathlib.Path:
  """Returns $SASA_TF_NATIVE_CACHE, or else `sasa_tf` in the user's cache directory.

  A user without a home directory has one in the directory for temporary files.
  """
  if chosen := os.environ.get(ENVIRONMENT_VARIABLE):
    return pathlib.Path(chosen)
  if base := os.environ.get("XDG_CACHE_HOME"):
    return pathlib.Path(base, "sasa_tf")
  try:
    return pathlib.Path.home() / ".cache" / "sasa_tf"
  except RuntimeError:
    return pathlib.Path(tempfile.gettempdir(), f"sasa_tf-{os.geteuid()}")


def sources(*suffixes: str) -> list[pathlib.Path]:
  """Returns the source files with one of the suffixes, sorted by path."""
  return sorted(path for path in SOURCE_ROOT.rglob("*") if path.suffix in suffixes)


def abi_flags() -> list[str]:
  """Returns the compiler flags of the installed TensorFlow, without its include directory."""
  return [flag for flag in tf.sysconfig.get_compile_flags() if not flag.startswith("-I")]


def library_directory() -> pathlib.Path:
  """Returns the directory of the library that belongs to this TensorFlow and these sources.

  Its name contains a hash of the sources, so that a library is never used with other sources.
  """
  digest = hashlib.sha256()
  for part in (tf.version.GIT_VERSION, platform.machine(), *abi_flags()):
    digest.update(part.encode() + b"\0")
  for path in sources(".h", ".cuh", ".cc", ".cu"):
    digest.update(str(path.relative_to(SOURCE_ROOT)).encode() + b"\0" + path.read_bytes() + b"\0")
  digest.update(_BUILD_SCRIPT.read_bytes())
  return cache_directory() / f"tensorflow-{tf.__version__}-{digest.hexdigest()[:16]}"


def library_path() -> pathlib.Path:
  """Returns the path of that library, whether it has been built or not."""
  return library_directory() / LIBRARY
