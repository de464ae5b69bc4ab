"""Compiles the forward kernel of one attention layer to PTX, for exported models.

PTX is NVIDIA's assembly language. It is text, which the driver of the GPU that runs it translates,
so that an exported model can hold it (see sasa_tf/ops/portable).
"""

from __future__ import annotations

import functools
import os
import pathlib
import shutil
import subprocess
import tempfile
from collections.abc import Mapping

from sasa_tf.errors import UserError
from sasa_tf.native import build, cache

KERNEL_NAME = "sasa_local_attention"
_SOURCE = cache.SOURCE_ROOT / "cuda" / "portable_forward.cuh"
_FLAGS = ("-std=c++17", "-O3", "--expt-relaxed-constexpr", "-ptx", "-x", "cu")


def find_nvcc() -> str | None:
  """Returns the path of nvcc, in PATH, $CUDA_HOME or /usr/local/cuda, or None."""
  toolkit = os.environ.get("CUDA_HOME") or "/usr/local/cuda"
  return shutil.which("nvcc") or shutil.which("nvcc", path=os.path.join(toolkit, "bin"))


def missing_compiler() -> str | None:
  """Returns why kernels cannot be compiled and how to change that, or None if they can."""
  if find_nvcc() is not None:
    return None
  return (
    "GPU kernels inside of an exported model are compiled by nvcc, and nvcc was not found in PATH, "
    "$CUDA_HOME/bin or /usr/local/cuda/bin. Install the CUDA toolkit (no GPU is needed), or export "
    "with --gpu_kernels=none."
  )


def compile_command(macros: Mapping[str, str | int], output: str | os.PathLike) -> list[str]:
  """Returns the command that compiles the kernel with these macros.

  Raises:
    UserError: nvcc is not installed.
  """
  missing = missing_compiler()
  if missing is not None:
    raise UserError(missing)
  definitions = [f"-D{name}={value}" for name, value in macros.items()]
  architecture = f"-arch=compute_{build.OLDEST_ARCHITECTURE}"
  include = f"-I{cache.SOURCE_ROOT}"
  return [
    str(find_nvcc()),
    *_FLAGS,
    architecture,
    include,
    *definitions,
    str(_SOURCE),
    "-o",
    str(output),
  ]


def compile_kernel(macros: Mapping[str, str | int]) -> str:
  """Returns the PTX text of `KERNEL_NAME` for GPUs of compute capability 8.0 and later.

  Args:
    macros: the macros SASA_* of cuda/portable_forward.cuh.

  Raises:
    UserError: nvcc is not installed, or failed; the message contains its output.
  """
  return _compile(tuple(sorted(macros.items())))


@functools.cache
def _compile(macros: tuple[tuple[str, str | int], ...]) -> str:
  with tempfile.TemporaryDirectory() as folder:
    output = pathlib.Path(folder, "kernel.ptx")
    command = compile_command(dict(macros), output)
    result = subprocess.run(command, capture_output=True, check=False)
    if result.returncode or not output.is_file():
      problem = (result.stderr or result.stdout).decode("utf-8", errors="replace").strip()
      raise UserError(
        "a kernel for the exported model cannot be compiled: this command failed\n  "
        f"{' '.join(command)}\n{problem[-3000:]}\nInstall CUDA 11.8 or later, or export with "
        "--gpu_kernels=none."
      )
    return output.read_text(encoding="utf-8")
