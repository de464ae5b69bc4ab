"""Where a built library lies: a folder for each TensorFlow, machine and state of the sources."""

from __future__ import annotations

import hashlib
import os
import pathlib
import platform

import tensorflow as tf

ENVIRONMENT_VARIABLE = "SASA_TF_NATIVE_CACHE"
LIBRARY, RECORD = "libsasa_tf.so", "build.json"

# Includes are written relative to this directory.
SOURCE_ROOT = pathlib.Path(__file__).parent


def cache_directory() -> pathlib.Path:
  """$SASA_TF_NATIVE_CACHE, else `sasa_tf` in the user's cache directory."""
  if chosen := os.environ.get(ENVIRONMENT_VARIABLE):
    return pathlib.Path(chosen)
  base = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
  return pathlib.Path(base, "sasa_tf")


def sources(*suffixes: str) -> list[pathlib.Path]:
  """Returns the source files with one of the suffixes, sorted by path."""
  return sorted(path for path in SOURCE_ROOT.rglob("*") if path.suffix in suffixes)


def abi_flags() -> list[str]:
  """The compiler's flags of the installed TensorFlow, without its include directory."""
  return [flag for flag in tf.sysconfig.get_compile_flags() if not flag.startswith("-I")]


def library_directory() -> pathlib.Path:
  """The folder of the library that belongs to this TensorFlow and these sources."""
  digest = hashlib.sha256()
  for part in (tf.version.GIT_VERSION, platform.machine(), *abi_flags()):
    digest.update(part.encode() + b"\0")
  for path in (*sources(".h", ".cuh", ".cc", ".cu"), SOURCE_ROOT / "build.py"):
    digest.update(str(path.relative_to(SOURCE_ROOT)).encode() + b"\0" + path.read_bytes() + b"\0")
  return cache_directory() / f"tensorflow-{tf.__version__}-{digest.hexdigest()[:16]}"
