"""Runs the CPU kernels under AddressSanitizer and UndefinedBehaviorSanitizer.

`python -m tests.native.sanitize [PROBLEMS]` compiles the kernels for every instruction set and
compares them with nested loops on that number of random problems each.
"""

import os
import pathlib
import subprocess
import sys
import tempfile

from sasa_tf.native import build, cache

CHECKS = ("check_cpu_kernels", "check_cpu_stem_kernels")
FLAGS = ("-g", "-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")


def main(problems: str = "300") -> int:
  """Compiles and runs the checks; returns the exit status."""
  compiler = build.find_compilers(architectures=())
  with tempfile.TemporaryDirectory() as scratch:
    commands = build.compile_commands(compiler, pathlib.Path(scratch))
    objects = {p: c for p, c in commands.items() if not p.name.startswith("ffi")}
    for command in objects.values():
      subprocess.run([*command, *FLAGS], check=True)
    for check in CHECKS:
      source = str(pathlib.Path(__file__).with_name(f"{check}.cc"))
      program = os.path.join(scratch, check)
      command = [
        compiler.cxx,
        "-std=c++17",
        *FLAGS,
        f"-I{cache.SOURCE_ROOT}",
        source,
        *map(str, objects),
      ]
      subprocess.run([*command, "-o", program, "-lpthread"], check=True)
      for variant in build.CPU_VARIANTS:
        environment = {**os.environ, "SASA_TF_NATIVE_CPU": variant}
        status = subprocess.run([program, problems], env=environment, check=False).returncode
        if status:
          return status
  return 0


if __name__ == "__main__":
  sys.exit(main(*sys.argv[1:]))
