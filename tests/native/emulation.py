"""Runs the CUDA kernels on an emulated GPU, compiled with the C++ compiler.

`python -m tests.native.emulation [--sanitize] [NAME] [ARGUMENTS]` compiles the kernels, the
emulator in `emulated_gpu`, and the program `NAME.cc`, which compares the kernels with loops, and
runs it with the arguments. `check_cuda_kernels` is the default; it takes the number of problems,
the first seed and settings:

  python -m tests.native.emulation 100 1 --depth=8 --type=bfloat16

$SASA_EMULATION_SEED selects another order of the threads.
"""

import concurrent.futures
import os
import pathlib
import subprocess
import sys
import tempfile

from sasa_tf.native import build, cache

HERE = pathlib.Path(__file__).parent
EMULATOR = HERE / "emulated_gpu"
FAST_TO_COMPILE, FAST_TO_RUN = ("-O0",), ("-O1",)
SANITIZE = ("-O0", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
# Kernels reinterpret memory, and declare shared memory as extern thread_local.
FLAGS = (
  *("-std=c++17", "-g1", "-DSASA_EMULATED_GPU", f"-I{EMULATOR}", f"-I{HERE}"),
  *("-fno-strict-aliasing", "-fno-extern-tls-init"),
)


def compile_emulator(folder: pathlib.Path) -> pathlib.Path:
  """Compiles the program that tests the emulator itself and returns its path."""
  return _compile([EMULATOR / "check_emulator.cc"], [], folder, FAST_TO_COMPILE)[0]


def compile_checks(names, folder: pathlib.Path, flags) -> list[pathlib.Path]:
  """Compiles the kernels and the programs that check them, and returns the programs' paths."""
  return _compile([HERE / f"{name}.cc" for name in names], cache.sources(".cu"), folder, flags)


def compile_portable_checks(
  macros: dict[str, dict[str, str | int]], folder: pathlib.Path, flags
) -> dict[str, pathlib.Path]:
  """Compiles `check_portable_kernel` with the macros of each case, and returns {case: path}."""
  source = HERE / "check_portable_kernel.cc"
  defined = {
    folder / case: [f"-D{name}={value}" for name, value in of_case.items()]
    for case, of_case in macros.items()
  }
  programs = _compile([source] * len(defined), [], folder, flags, defined)
  return dict(zip(macros, programs, strict=True))


def _compile(mains, kernels, folder, flags, defined=None):
  """Compiles programs: their sources, or one source as {program: its definitions}."""
  compiler = build.find_compilers(architectures=()).cxx
  include = f"-I{cache.SOURCE_ROOT}"
  # Always optimized, as it takes most of the run time.
  emulator = [path for path in sorted(EMULATOR.glob("*.cc")) if path.stem != "check_emulator"]

  def run(command):
    # Captured, as the compiler warns about nvcc's pragmas and attributes.
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr

  def compile_one(source, program=None, definitions=()):
    name = source.stem if source.is_relative_to(HERE) else build.object_name(source)
    target = f"{program or folder / name}.o"
    optimization = "-O3" if source in emulator else flags[0]
    command = [compiler, *FLAGS, include, *flags, optimization, *definitions]
    run([*command, "-x", "c++", "-c", str(source), "-o", target])
    return target

  shared = [*sorted(kernels, key=lambda path: -path.stat().st_size), *emulator]
  programs = list(defined or (folder / source.stem for source in mains))
  definitions = list((defined or dict.fromkeys(programs, ())).values())
  with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
    objects = list(pool.map(compile_one, shared))
    objects += pool.map(compile_one, mains, programs, definitions)
  for program, main in zip(programs, objects[len(shared) :], strict=True):
    run([compiler, *flags, *objects[: len(shared)], main, "-o", str(program)])
  return programs


def main(arguments: list[str]) -> int:
  flags = SANITIZE if "--sanitize" in arguments else FAST_TO_RUN
  rest = [argument for argument in arguments if argument != "--sanitize"]
  name = rest.pop(0) if rest and rest[0].startswith("check_") else "check_cuda_kernels"
  with tempfile.TemporaryDirectory() as scratch:
    (program,) = compile_checks([name], pathlib.Path(scratch), flags)
    return subprocess.run([str(program), *rest], check=False).returncode


if __name__ == "__main__":
  sys.exit(main(sys.argv[1:]))
