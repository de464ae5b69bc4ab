"""Builds the compiled kernels with the installed TensorFlow's headers.

`python -m sasa_tf.native.build` puts the library into the user's cache directory, where
`implementation="fused"` finds it. It needs g++ (or what CXX names), and nvcc for NVIDIA GPUs.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import dataclasses
import functools
import json
import os
import pathlib
import platform
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence

import tensorflow as tf

from sasa_tf.errors import UserError
from sasa_tf.native import cache, library

LOSS = (
  "Without it local attention runs on TensorFlow's own operations (implementation='blocked'): the "
  "same results, but slower."
)

# Namespace -> floats in a vector and what the compiler needs to be told.
CPU_VARIANTS = {"plain": (4, ())}
if platform.machine() in ("x86_64", "AMD64"):
  CPU_VARIANTS |= {
    "avx2": (8, ("-mavx2", "-mfma")),
    "avx512": (
      16,
      ("-mavx2", "-mfma", "-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl"),
    ),
  }

# Compiled once for each instruction set.
VARIED_SOURCES = ("cpu_attention_kernels", "cpu_stem_attention_kernels")

# -Wno-psabi: vectors are passed between inlined functions only.
CXX_FLAGS = (
  "-std=c++17",
  "-O3",
  "-fPIC",
  "-fvisibility=hidden",
  "-ffp-contract=fast",
  "-Wno-psabi",
)
NVCC_FLAGS = ("-std=c++17", "-O3", "-Xcompiler", "-fPIC,-fvisibility=hidden")

# Of a GPU, as nvcc writes it: 80 is compute capability 8.0.
OLDEST_ARCHITECTURE = 80


@dataclasses.dataclass(frozen=True)
class Compilers:
  """Absolute paths of the compilers; no nvcc, no CUDA kernels.

  Attributes:
    cxx: of C++.
    nvcc: of CUDA, or None.
    architectures: of the GPUs that nvcc compiles for; newer ones run the code of the last.
  """

  cxx: str
  nvcc: str | None
  architectures: tuple[int, ...] = ()

  @property
  def record(self) -> dict:
    """What another build is compared with, as JSON has it."""
    return {"versions": self.versions, "architectures": list(self.architectures)}

  @functools.cached_property
  def versions(self) -> dict[str, str]:
    """What each compiler says about itself."""
    present = [path for path in (self.cxx, self.nvcc) if path]
    return {path: _run([path, "--version"]) for path in present}


def host_architectures() -> tuple[int, ...]:
  """Returns the architectures of this host's GPUs that the CUDA kernels can run on."""
  found = set()
  for gpu in tf.config.list_physical_devices("GPU"):
    details = tf.config.experimental.get_device_details(gpu)
    major, minor = details.get("compute_capability", (0, 0))
    found.add(10 * major + minor)
  return tuple(sorted(number for number in found if number >= OLDEST_ARCHITECTURE))


def find_compilers(architectures: Sequence[int] | None = None) -> Compilers:
  """Looks for g++ (or $CXX) and nvcc, which may be in $CUDA_HOME or /usr/local/cuda.

  Args:
    architectures: of the GPUs to compile for, 80 or more; None for this host's, () for no CUDA.

  Raises:
    UserError: there is no C++ compiler.
  """
  wanted = os.environ.get("CXX") or "g++"
  cxx = shutil.which(wanted)
  if cxx is None:
    raise UserError(
      f"the compiled kernels need a C++ compiler, and there is no {wanted}. Install g++ (Debian "
      "and Ubuntu: apt install g++), or name another in the environment variable CXX."
    )
  toolkit = os.environ.get("CUDA_HOME") or "/usr/local/cuda"
  nvcc = shutil.which("nvcc") or shutil.which("nvcc", path=os.path.join(toolkit, "bin"))
  if architectures is None:
    architectures = host_architectures()
  return (
    Compilers(cxx, nvcc, tuple(sorted(architectures)))
    if nvcc and architectures
    else Compilers(cxx, None)
  )


def build(
  *,
  architectures: Sequence[int] | None = None,
  force: bool = False,
  report: Callable[[str], None] = print,
) -> pathlib.Path:
  """Builds the library, unless these compilers have built it already.

  Safe to run in several processes at once: each builds apart and puts the whole in place at once.

  Args:
    architectures: of the NVIDIA GPUs to compile for; this host's by default, where nvcc is found.
    force: whether to build in any case.
    report: is called with each line about what is done.

  Returns:
    The library's path.

  Raises:
    UserError: no compiler, or it failed; the message has its words.
  """
  compilers = find_compilers(architectures)
  target = cache.library_directory()
  if not force and library.read_record(target).get("compilers") == compilers.record:
    report(f"already built: {target / cache.LIBRARY}")
    return target / cache.LIBRARY
  begin = time.monotonic()
  target.parent.mkdir(parents=True, exist_ok=True)
  staged = pathlib.Path(tempfile.mkdtemp(prefix=f"{target.name}.", dir=target.parent))
  try:
    _compile(compilers, staged, report)
    record = {
      "compilers": compilers.record,
      "platforms": ["CPU", "CUDA"] if compilers.nvcc else ["CPU"],
      "cuda": _cuda_version(compilers),
    }
    (staged / cache.RECORD).write_text(json.dumps(record, indent=2) + "\n")
    staged.chmod(0o755)
    _put_in_place(staged, target)
  finally:
    shutil.rmtree(staged, ignore_errors=True)
  library.load.cache_clear()
  report(f"built in {time.monotonic() - begin:.0f} s: {target / cache.LIBRARY}")
  return target / cache.LIBRARY


def object_name(source: pathlib.Path) -> str:
  """Returns the name of a source's object file: its path within the package, joined by "_"."""
  return "_".join(source.relative_to(cache.SOURCE_ROOT).with_suffix("").parts)


def compile_commands(compilers: Compilers, folder: pathlib.Path) -> dict[pathlib.Path, list[str]]:
  """Returns {object file: the command that makes it}; all may run at once."""
  commands = {}
  root = f"-I{cache.SOURCE_ROOT}"

  def add(name: str, command: Sequence[str]) -> None:
    commands[folder / f"{name}.o"] = [*command, "-o", str(folder / f"{name}.o")]

  if compilers.nvcc:
    kinds = [(number, f"sm_{number}") for number in compilers.architectures]
    newest = compilers.architectures[-1]
    codes = [f"arch=compute_{n},code={k}" for n, k in [*kinds, (newest, f"compute_{newest}")]]
    flags = [flag for code in codes for flag in ("-gencode", code)]
    # First, as they take longest.
    for source in cache.sources(".cu"):
      add(object_name(source), [compilers.nvcc, *NVCC_FLAGS, *flags, root, "-c", str(source)])
  include = f"-isystem{tf.sysconfig.get_include()}"
  cuda = ["-DSASA_TF_WITH_CUDA"] if compilers.nvcc else []
  for source in cache.sources(".cc"):
    name = object_name(source)
    plain = [compilers.cxx, *CXX_FLAGS, root, "-c", str(source)]
    if name in VARIED_SOURCES:
      for variant, (lanes, flags) in CPU_VARIANTS.items():
        definitions = [f"-DSASA_VARIANT={variant}", f"-DSASA_LANES={lanes}"]
        add(f"{name}_{variant}", [*plain, *flags, *definitions])
    else:
      add(name, [*plain, include, *cache.abi_flags(), *cuda])
  return commands


def _compile(compilers: Compilers, folder: pathlib.Path, report: Callable[[str], None]) -> None:
  """Leaves the library, and nothing else, in the folder."""
  commands = compile_commands(compilers, folder)
  names = " and ".join(pathlib.Path(path).name for path in compilers.versions)
  report(f"compiling {len(commands)} files with {names} for TensorFlow {tf.__version__} ...")
  with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
    list(pool.map(_run, commands.values()))
  runtime = []
  if compilers.nvcc:
    # Before TensorFlow's libraries, which export stubs of an older CUDA.
    runtime = [*_cuda_library_flags(compilers), "-lcudart_static", "-ldl", "-lrt", "-lpthread"]
  hidden = ["-Wl,--exclude-libs,ALL", "-Wl,-Bsymbolic"]
  command = [compilers.cxx, "-shared", "-o", str(folder / cache.LIBRARY), *map(str, commands)]
  _run([*command, *runtime, *tf.sysconfig.get_link_flags(), *hidden])
  for path in commands:
    path.unlink()


def _put_in_place(staged: pathlib.Path, target: pathlib.Path) -> None:
  """Renames the folder; another that is there already makes room."""
  try:
    staged.rename(target)
  except OSError:
    old = pathlib.Path(tempfile.mkdtemp(prefix=f"{target.name}.old.", dir=target.parent))
    try:
      target.rename(old)
      staged.rename(target)
    except OSError:
      # Another process was faster: it has put there what was to be put there.
      if not (target / cache.LIBRARY).is_file():
        raise
    finally:
      shutil.rmtree(old, ignore_errors=True)


def _cuda_library_flags(compilers: Compilers) -> list[str]:
  """-L flags of the toolkit, which only nvcc knows: what is called may be a script elsewhere."""
  command = [compilers.nvcc, "--dryrun", str(cache.sources(".cu")[0])]
  told = subprocess.run(command, capture_output=True, text=True, check=False).stderr
  (flags,) = re.findall(r"^#\$ LIBRARIES=(.*)$", told, re.MULTILINE)
  return shlex.split(flags)


def _cuda_version(compilers: Compilers) -> str | None:
  """Of "... release 13.0, V13.0.88 ...", what follows "release"."""
  if compilers.nvcc is None:
    return None
  return compilers.versions[compilers.nvcc].partition("release ")[2].partition(",")[0]


def _run(command: Sequence[str]) -> str:
  """Returns what the command says.

  Raises:
    UserError: it failed.
  """
  result = subprocess.run(command, capture_output=True, text=True, check=False)
  if result.returncode:
    said = (result.stderr or result.stdout).strip()
    raise UserError(
      f"the compiled kernels cannot be built: this command failed\n  {' '.join(command)}\n"
      f"{said[-3000:]}"
    )
  return result.stdout.strip()


def _architectures(text: str) -> tuple[int, ...]:
  """Parses "80,90"."""
  numbers = tuple(int(part) for part in text.split(","))
  if min(numbers) < OLDEST_ARCHITECTURE:
    raise argparse.ArgumentTypeError(
      f"the kernels need GPUs of {OLDEST_ARCHITECTURE} (compute capability 8.0) or more; received "
      f"{text}"
    )
  return numbers


def main(arguments: Sequence[str] | None = None) -> int:
  """Builds as the command line says and returns the exit status."""
  parser = argparse.ArgumentParser(
    prog="python -m sasa_tf.native.build", description=__doc__.partition("\n")[0]
  )
  parser.add_argument(
    "--if_possible", action="store_true", help="a missing compiler or a failure is no error"
  )
  parser.add_argument("--force", action="store_true", help="build even if it has been built")
  parser.add_argument("--no_cuda", action="store_true", help="not for NVIDIA GPUs")
  parser.add_argument(
    "--cuda_architectures",
    type=_architectures,
    help="of NVIDIA GPUs elsewhere, such as 80,90; those of this host by default",
  )
  options = parser.parse_args(arguments)
  try:
    build(architectures=() if options.no_cuda else options.cuda_architectures, force=options.force)
  except UserError as error:
    print(f"{'note' if options.if_possible else 'error'}: {error} {LOSS}", file=sys.stderr)
    return 0 if options.if_possible else 1
  return 0


if __name__ == "__main__":
  sys.exit(main())
