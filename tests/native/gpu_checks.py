"""Runs the programs that check the CUDA kernels on an NVIDIA GPU, also under compute-sanitizer.

`python -m tests.native.gpu_checks [PROBLEMS] [SANITIZED_PROBLEMS]` compiles them with nvcc for this
host's GPUs and compares random problems with loops in double precision, and half as many with an
element that is NaN or infinite, which the kernels must not hide; repeats passes of larger problems,
which must give the same bits; then checks fewer problems under compute-sanitizer's memcheck and
racecheck, if it is installed. `--build=FOLDER --architecture=90` only compiles the programs, for
another host.
"""

import argparse
import concurrent.futures
import itertools
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

from sasa_tf.native import build, cache

HERE = pathlib.Path(__file__).parent
PROGRAMS = (
  "check_cuda_kernels",
  "check_cuda_stem_kernels",
  "check_cuda_projections",
  "check_cuda_projection_backward",  # on Hopper GPUs only
)
PASSES = "check_repeated_passes"  # has kernels of its own
# Problems that the one-pass backward kernel supports, with windows of 3, 5 and 7. Heads 16 wide in
# images of more than 32 columns have another kernel.
ONE_PASS = ("--one_pass=1", "--dilation=1", "--key=1", "--type=bfloat16")
ONE_PASS_KERNELS = (("--depth=8",), ("--depth=16",), ("--depth=16", "--width=45"))

# Problems that the kernels for small images support.
ROWS = ("--rows=1", "--dilation=1", "--key=1", "--type=bfloat16")
# Shared memory is for the backward pass of at most 13 rows of heads 64 wide.
ROW_KERNELS = (("--depth=32",), ("--depth=64", "--height=13"), ("--depth=64", "--backward=0"))


def compile_programs(folder: pathlib.Path, architectures: tuple[int, ...] | None) -> None:
  """Compiles the programs into the folder."""
  compilers = build.find_compilers(architectures)
  if compilers.nvcc is None:
    sys.exit("found no NVIDIA GPU to compile for, or no nvcc")
  sources = cache.sources(".cu")
  commands = {
    path: command
    for path, command in build.compile_commands(compilers, folder).items()
    if path.stem in {build.object_name(source) for source in sources}
  }
  include = [f"-I{path}" for path in (HERE / "real_gpu", HERE, cache.SOURCE_ROOT)]
  codes = [f"-gencode=arch=compute_{n},code=sm_{n}" for n in compilers.architectures]
  programs: dict[str, list[str]] = {name: [] for name in PROGRAMS}
  programs[PASSES] = ["-x", "cu", *codes]
  for name, flags in programs.items():
    target = folder / f"{name}.o"
    source = str(HERE / f"{name}.cc")
    commands[target] = [compilers.nvcc, *flags, "-std=c++17", "-O2", *include, "-c", source]
    commands[target] += ["-o", str(target)]
  with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
    for result in pool.map(lambda c: subprocess.run(c, check=False), commands.values()):
      result.check_returncode()
  kernels = [str(path) for path in commands if path.stem not in programs]
  for name in programs:
    program = str(folder / name)
    subprocess.run([compilers.nvcc, *kernels, f"{program}.o", "-o", program], check=True)


def run_check(command: list[str]) -> int:
  """Runs a command, prints it with its output when it has ended, and returns its status."""
  result = subprocess.run(
    command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
  )
  print(f"{pathlib.Path(command[0]).name} {' '.join(command[1:])}\n{result.stdout}", flush=True)
  return abs(result.returncode)


def main() -> int:
  parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
  parser.add_argument("problems", nargs="?", default="500")
  parser.add_argument("sanitized", nargs="?", default="20")
  parser.add_argument("--passes", default="1000", help="of each shape whose bits are compared")
  parser.add_argument("--build", type=pathlib.Path, help="only compile, into this folder")
  parser.add_argument("--architecture", type=int, help="architecture to compile for")
  options = parser.parse_args()
  with tempfile.TemporaryDirectory() as scratch:
    folder = options.build or pathlib.Path(scratch)
    folder.mkdir(parents=True, exist_ok=True)
    compile_programs(folder, (options.architecture,) if options.architecture else None)
    if options.build:
      return 0
    runs = [[str(folder / name), options.problems] for name in PROGRAMS]
    half, few = str(int(options.problems) // 2), str(int(options.problems) // 20)
    runs += [[str(folder / name), half, f"--nonfinite={n}"] for name in PROGRAMS for n in (1, 2)]
    one_pass = [
      [*ONE_PASS, f"--kernel={kernel}", *flags]
      for kernel, flags in itertools.product((3, 5, 7), ONE_PASS_KERNELS)
    ]
    for flags in one_pass:
      kernel = [str(folder / PROGRAMS[0]), half, *flags]
      runs += [kernel, [*kernel, "--nonfinite=1"], [*kernel, "--nonfinite=2"]]
    rows = [
      [*ROWS, f"--kernel={kernel}", *flags]
      for kernel, flags in itertools.product((3, 5, 7), ROW_KERNELS)
    ]
    # Several images for each CTA, of which the loops take their time.
    many_images = [[*flags, "--batch=20", "--heads=16"] for flags in rows]
    for problems, flags in [(half, f) for f in rows] + [(few, f) for f in many_images]:
      kernel = [str(folder / PROGRAMS[0]), problems, *flags]
      runs += [kernel, [*kernel, "--nonfinite=1"], [*kernel, "--nonfinite=2"]]
    # More tiles for each CTA than stages of shared memory.
    runs.append([str(folder / PROGRAMS[3]), "4", "1", "--pixels=60001"])
    runs.append([str(folder / PASSES), options.passes])
    if sanitizer := shutil.which("compute-sanitizer"):
      for tool in ("memcheck", "racecheck"):
        run = [sanitizer, f"--tool={tool}", "--error-exitcode=1"]
        runs += [[*run, str(folder / name), options.sanitized] for name in PROGRAMS]
        of_kernels = [*one_pass, *rows, *many_images]
        runs += [[*run, str(folder / PROGRAMS[0]), options.sanitized, *f] for f in of_kernels]
    else:
      print("compute-sanitizer is not installed")
    # Each takes half a GiB of the GPU's memory.
    with concurrent.futures.ThreadPoolExecutor(min(16, os.cpu_count() or 1)) as pool:
      return max(pool.map(run_check, runs))


if __name__ == "__main__":
  sys.exit(main())
