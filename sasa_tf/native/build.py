"""Builds the compiled kernels with the installed TensorFlow's headers.

`python -m sasa_tf.native.build`, installed as `sasa-build-kernels`, writes the library to the
user's cache directory, where `implementation="fused"` finds it. It needs g++ (or the compiler in
the environment variable CXX), and nvcc for NVIDIA GPUs.
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
import traceback
from collections.abc import Callable, Sequence

from sasa_tf.compat import startup_messages

startup_messages.silence()

import tensorflow as tf

from sasa_tf.errors import UserError
from sasa_tf.native import cache, library, trust

CONSEQUENCE = (
  "Without them local attention uses TensorFlow's own operations (implementation='blocked'): the "
  "results are the same, but it is slower."
)

# Instruction set, which is the kernels' namespace -> floats in a vector, compiler flags.
CPU_VARIANTS = {"plain": (4, ())}
if platform.machine() in ("x86_64", "AMD64"):
  CPU_VARIANTS |= {
    "avx2": (8, ("-mavx2", "-mfma")),
    "avx512": (
      16,
      ("-mavx2", "-mfma", "-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl"),
    ),
  }

# Sources that are compiled once for each instruction set.
ISA_SOURCES = ("cpu_attention_kernels", "cpu_stem_attention_kernels")

# -Wno-psabi: vectors are passed only between inlined functions, so their ABI does not matter.
CXX_FLAGS = (
  "-std=c++17",
  "-O3",
  "-fPIC",
  "-fvisibility=hidden",
  "-ffp-contract=fast",
  "-Wno-psabi",
)
# -O is about the code that launches kernels; nvcc always optimizes the kernels themselves.
NVCC_FLAGS = ("-std=c++17", "-O1", "-Xcompiler", "-fPIC,-fvisibility=hidden")

# Nothing else, because a preloaded library replaces the symbols of the whole process.
EXPORTED_SYMBOLS = "{ global: sasa_tf_*; local: *; };\n"

# GPU architectures are written as nvcc does: 80 is compute capability 8.0.
OLDEST_ARCHITECTURE = 80
HOPPER_ARCHITECTURE = 90

# Sources with instructions that exist only in code for sm_90a, and not in PTX for newer GPUs.
HOPPER_SOURCES = ("cuda_wgmma_projection_backward",)


@dataclasses.dataclass(frozen=True)
class Compilers:
  """The compilers of a build.

  Attributes:
    cxx: path of the C++ compiler.
    nvcc: path of the CUDA compiler; None to build no CUDA kernels.
    architectures: the GPU architectures to compile for; newer GPUs run PTX of the last one.
  """

  cxx: str
  nvcc: str | None
  architectures: tuple[int, ...] = ()

  @property
  def record(self) -> dict:
    """Returns what identifies the compilers in a build's record."""
    return {"versions": self.versions, "architectures": list(self.architectures)}

  @functools.cached_property
  def versions(self) -> dict[str, str]:
    """Returns {path: output of --version}."""
    present = [path for path in (self.cxx, self.nvcc) if path]
    return {path: _run([path, "--version"]) for path in present}


def host_architectures() -> tuple[int, ...]:
  """Returns the architectures of this host's GPUs that the CUDA kernels support."""
  found = set()
  for gpu in tf.config.list_physical_devices("GPU"):
    details = tf.config.experimental.get_device_details(gpu)
    major, minor = details.get("compute_capability", (0, 0))
    found.add(10 * major + minor)
  return tuple(sorted(number for number in found if number >= OLDEST_ARCHITECTURE))


def find_compilers(architectures: Sequence[int] | None = None) -> Compilers:
  """Finds g++ (or $CXX), and nvcc in PATH, $CUDA_HOME or /usr/local/cuda.

  Args:
    architectures: the GPU architectures to compile for, 80 or more; None for this host's, () for
      no CUDA kernels.

  Raises:
    UserError: there is no C++ compiler.
  """
  wanted = os.environ.get("CXX") or "g++"
  cxx = shutil.which(wanted)
  if cxx is None:
    raise UserError(
      f"the compiled kernels need a C++ compiler, but {wanted} was not found. Install g++ (Debian "
      "and Ubuntu: apt install g++), or set the environment variable CXX to another one."
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
  """Builds the library, unless these compilers have already built it.

  Several processes may build at once: each builds in its own directory and renames it atomically.

  Args:
    architectures: the NVIDIA GPU architectures to compile for; this host's by default, if nvcc is
      found.
    force: build even if the library exists.
    report: called with each line of progress.

  Returns:
    The library's path.

  Raises:
    UserError: there is no compiler, or it failed, and the message contains its output; or the cache
      directory cannot be written, or is writable by other users.
  """
  compilers = find_compilers(architectures)
  target = cache.library_directory()
  path = target / cache.LIBRARY
  same = library.read_record(target).get("compilers") == compilers.record
  if not force and same and not library.unusable_reason(path):
    report(f"already built: {path}")
    return path
  begin = time.monotonic()
  try:
    _build_in(target, compilers, report)
  except OSError as error:
    raise UserError(
      f"the compiled kernels cannot be written to {target.parent}: {error}. Expected a directory "
      "that this user may write to, on a disk that is not full. Change its permissions, free some "
      f"space, or set {cache.ENVIRONMENT_VARIABLE} to another directory."
    ) from error
  library.load.cache_clear()
  report(f"built in {time.monotonic() - begin:.0f} s: {path}")
  return path


def _build_in(target: pathlib.Path, compilers: Compilers, report: Callable[[str], None]) -> None:
  """Compiles the library and puts it, with its record, in the target directory."""
  if not target.parent.exists():
    target.parent.mkdir(parents=True, exist_ok=True)
    trust.revoke_writing(target.parent)
  if reason := trust.untrusted_reason([target.parent]):
    raise UserError(
      f"the compiled kernels are not built, because they would not be loaded: {reason}, or set "
      f"{cache.ENVIRONMENT_VARIABLE} to another directory."
    )
  staged = pathlib.Path(tempfile.mkdtemp(prefix=f"{target.name}.", dir=target.parent))
  try:
    _compile(compilers, staged, report)
    record = {
      "compilers": compilers.record,
      "platforms": ["CPU", "CUDA"] if compilers.nvcc else ["CPU"],
      "cuda": _cuda_version(compilers),
      "sha256": library.digest(staged / cache.LIBRARY),
    }
    (staged / cache.RECORD).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    for path, mode in ((cache.LIBRARY, 0o755), (cache.RECORD, 0o644), (".", 0o755)):
      (staged / path).chmod(mode)
    _put_in_place(staged, target)
  finally:
    shutil.rmtree(staged, ignore_errors=True)


def object_name(source: pathlib.Path) -> str:
  """Returns the name of a source's object file: its path within the package, joined by "_"."""
  return "_".join(source.relative_to(cache.SOURCE_ROOT).with_suffix("").parts)


def compile_commands(compilers: Compilers, folder: pathlib.Path) -> dict[pathlib.Path, list[str]]:
  """Returns {object file: the command that compiles it}; the commands are independent."""
  commands = {}
  root = f"-I{cache.SOURCE_ROOT}"

  def add(name: str, command: Sequence[str]) -> None:
    commands[folder / f"{name}.o"] = [*command, "-o", str(folder / f"{name}.o")]

  if compilers.nvcc:
    # First, because they take longest.
    for source in cache.sources(".cu"):
      name = object_name(source)
      flags = _code_flags(compilers.architectures, name in HOPPER_SOURCES)
      add(name, [compilers.nvcc, *NVCC_FLAGS, *flags, root, "-c", str(source)])
  include = f"-isystem{tf.sysconfig.get_include()}"
  cuda = ["-DSASA_TF_WITH_CUDA"] if compilers.nvcc else []
  for source in cache.sources(".cc"):
    name = object_name(source)
    plain = [compilers.cxx, *CXX_FLAGS, root, "-c", str(source)]
    if name in ISA_SOURCES:
      for variant, (lanes, flags) in CPU_VARIANTS.items():
        definitions = [f"-DSASA_VARIANT={variant}", f"-DSASA_LANES={lanes}"]
        add(f"{name}_{variant}", [*plain, *flags, *definitions])
    else:
      add(name, [*plain, include, *cache.abi_flags(), *cuda])
  return commands


def _code_flags(architectures: Sequence[int], for_hopper: bool) -> list[str]:
  """Returns nvcc's flags for code of the architectures, and PTX of the last for newer GPUs.

  Args:
    architectures: sorted.
    for_hopper: whether code for Hopper is for sm_90a.
  """
  names = [
    f"{number}a" if for_hopper and number == HOPPER_ARCHITECTURE else str(number)
    for number in architectures
  ]
  codes = [f"arch=compute_{name},code=sm_{name}" for name in names]
  newest = architectures[-1]
  codes.append(f"arch=compute_{newest},code=compute_{newest}")
  return [flag for code in codes for flag in ("-gencode", code)]


def _compile(compilers: Compilers, folder: pathlib.Path, report: Callable[[str], None]) -> None:
  """Compiles and links the library in the folder, and removes the object files."""
  commands = compile_commands(compilers, folder)
  names = " and ".join(pathlib.Path(path).name for path in compilers.versions)
  report(f"compiling {len(commands)} files with {names} for TensorFlow {tf.__version__} ...")
  with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
    list(pool.map(_run, commands.values()))
  runtime = []
  if compilers.nvcc:
    runtime = [*_cuda_library_flags(compilers), "-lcudart_static", "-lrt", "-lpthread"]
  symbols = folder / "exported_symbols.map"
  symbols.write_text(EXPORTED_SYMBOLS, encoding="utf-8")
  command = [compilers.cxx, "-shared", "-o", str(folder / cache.LIBRARY), *map(str, commands)]
  command += [*runtime, *_portable_flags(compilers), f"-Wl,--version-script={symbols}", "-ldl"]
  _run(command)
  symbols.unlink()
  if not (folder / cache.LIBRARY).is_file():
    raise UserError(
      "the compiled kernels cannot be built: the compiler reported success, but wrote no library\n"
      f"  {' '.join(command)}"
    )
  for path in commands:
    path.unlink(missing_ok=True)


def _portable_flags(compilers: Compilers) -> list[str]:
  """Returns the flags for other machines, to which the library is copied with exported models.

  The C++ runtime is linked statically if it is installed as an archive, and without what would need
  a later C library.
  """
  found = _output([compilers.cxx, "-print-file-name=libstdc++.a"])[1].strip()
  return ["-Wl,--gc-sections", *(["-static-libstdc++"] if os.path.isabs(found) else [])]


def _put_in_place(staged: pathlib.Path, target: pathlib.Path) -> None:
  """Renames the staged directory to the target, and replaces an existing one."""
  try:
    staged.rename(target)
  except OSError:
    old = pathlib.Path(tempfile.mkdtemp(prefix=f"{target.name}.old.", dir=target.parent))
    try:
      target.rename(old)
      staged.rename(target)
    except OSError:
      # Another process has put the same library there in the meantime.
      if not (target / cache.LIBRARY).is_file():
        raise
    finally:
      shutil.rmtree(old, ignore_errors=True)


def _cuda_library_flags(compilers: Compilers) -> list[str]:
  """Returns the toolkit's -L flags as nvcc reports them, because nvcc may be a wrapper script."""
  command = [compilers.nvcc, "--dryrun", str(cache.sources(".cu")[0])]
  found = re.search(r"^#\$ LIBRARIES=(.*)$", _output(command)[2], re.MULTILINE)
  if found is None:
    raise UserError(
      f"the CUDA kernels cannot be built: `{' '.join(command)}` does not print the toolkit's "
      "libraries. Build without CUDA (--no_cuda), or set CUDA_HOME to another toolkit."
    )
  return shlex.split(found[1])


def _cuda_version(compilers: Compilers) -> str | None:
  """Returns the toolkit's version, such as "13.0"; None without nvcc."""
  if compilers.nvcc is None:
    return None
  return compilers.versions[compilers.nvcc].partition("release ")[2].partition(",")[0]


def _output(command: Sequence[str]) -> tuple[int, str, str]:
  """Runs a command; returns its exit status, output and errors, in whatever encoding these are.

  Raises:
    UserError: it cannot be started.
  """
  try:
    result = subprocess.run(command, capture_output=True, check=False)
  except OSError as error:
    raise UserError(
      f"the compiled kernels cannot be built: {command[0]} cannot be run ({error.strerror})."
    ) from error
  return (
    result.returncode,
    result.stdout.decode("utf-8", errors="replace"),
    result.stderr.decode("utf-8", errors="replace"),
  )


def _run(command: Sequence[str]) -> str:
  """Runs a command and returns its output.

  Raises:
    UserError: it failed.
  """
  status, output, errors = _output(command)
  if status:
    problem = (errors or output).strip()
    full = "the disk is full: " if "No space left on device" in problem else ""
    raise UserError(
      f"the compiled kernels cannot be built: {full}this command failed\n  {' '.join(command)}\n"
      f"{problem[-3000:]}"
    )
  return output.strip()


def _architectures(text: str) -> tuple[int, ...]:
  """Parses a list such as "80,90"."""
  architectures = tuple(int(part) for part in text.split(","))
  if min(architectures) < OLDEST_ARCHITECTURE:
    raise argparse.ArgumentTypeError(
      f"the CUDA kernels need architecture {OLDEST_ARCHITECTURE} (compute capability 8.0) or more; "
      f"received {text}"
    )
  return architectures


def main(arguments: Sequence[str] | None = None) -> int:
  """Runs the command line and returns the exit status."""
  parser = argparse.ArgumentParser(
    prog="sasa-build-kernels", description=__doc__.partition("\n")[0]
  )
  parser.add_argument(
    "--if_possible",
    action="store_true",
    help="exit with status 0 if there is no compiler or it fails",
  )
  parser.add_argument("--force", action="store_true", help="build even if the library exists")
  parser.add_argument("--no_cuda", action="store_true", help="build no CUDA kernels")
  parser.add_argument(
    "--cuda_architectures",
    type=_architectures,
    help="GPU architectures, such as 80,90; those of this host by default",
  )
  options = parser.parse_args(arguments)
  try:
    build(architectures=() if options.no_cuda else options.cuda_architectures, force=options.force)
  except UserError as error:
    print(f"{'note' if options.if_possible else 'error'}: {error} {CONSEQUENCE}", file=sys.stderr)
    return 0 if options.if_possible else error.exit_status
  except Exception:
    if not options.if_possible:
      raise
    print(
      f"note: the compiled kernels cannot be built: {traceback.format_exc()}{CONSEQUENCE}",
      file=sys.stderr,
    )
  return 0


if __name__ == "__main__":
  sys.exit(main())
