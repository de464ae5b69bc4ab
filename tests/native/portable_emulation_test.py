"""The kernels of exported models on an emulated GPU, against loops in double precision."""

import os
import subprocess

import pytest

from sasa_tf.errors import UserError
from sasa_tf.native import build
from sasa_tf.ops.portable.kernel import PortableKernel
from sasa_tf.ops.window import WindowGeometry
from tests.native import emulation

try:
  build.find_compilers(())
  COMPILER = True
except UserError:
  COMPILER = False
pytestmark = pytest.mark.skipif(not COMPILER, reason="there is no C++ compiler")

SEVEN = WindowGeometry((7, 7), (1, 1), "zero")
MASKED = WindowGeometry((7, 7), (1, 1), "mask")
# Tensor cores: each head width and tile configuration, with several tiles per image.
TENSOR_CORES = {
  "width 8": PortableKernel("bfloat16", (11, 31), 3, 8, SEVEN, 0.3),
  "width 16, pooled": PortableKernel("bfloat16", (18, 34), 2, 16, MASKED, 0.25, pool_size=2),
  "width 16, narrow image": PortableKernel("float16", (17, 9), 3, 16, MASKED, 0.25),
  "width 32, wide image": PortableKernel("bfloat16", (9, 18), 1, 32, SEVEN, 0.2),
  "width 32, no positions": PortableKernel(
    "bfloat16", (14, 14), 2, 32, SEVEN, 0.2, has_relative=False
  ),
  "width 64, pooled": PortableKernel("bfloat16", (10, 12), 1, 64, SEVEN, 0.1, pool_size=2),
  "width 64, no keys": PortableKernel("bfloat16", (7, 7), 2, 64, MASKED, 0.1, has_key=False),
}
SIMT = {
  "float32": PortableKernel("float32", (13, 10), 3, 8, SEVEN, 0.3),
  "3 x 5 window": PortableKernel(
    "bfloat16", (9, 12), 2, 24, WindowGeometry((3, 5), (2, 1), "mask"), 0.2
  ),
}
FAST = ("width 16, pooled", "width 32, no positions", "3 x 5 window")


def check(kernels, folder):
  """Compares the output of each kernel, for fewer and for more CTAs than there are tiles."""
  macros = {case.replace(" ", "_"): kernel.macros for case, kernel in kernels.items()}
  programs = emulation.compile_portable_checks(macros, folder, emulation.FAST_TO_COMPILE)
  for program, kernel in zip(programs.values(), kernels.values(), strict=True):
    groups = kernel.head_groups
    for ctas, batch in ((groups, 2), (16 * groups, 1)):
      result = subprocess.run(
        [str(program), str(ctas), str(batch), "1"],
        env={**os.environ, "SASA_EMULATION_SEED": "1"},
        capture_output=True,
        text=True,
        check=False,
      )
      assert result.returncode == 0, f"{program.name}: {result.stdout}{result.stderr}"
      assert "agree" in result.stdout


def test_kernels_match_loops(tmp_path):
  check({case: (TENSOR_CORES | SIMT)[case] for case in FAST}, tmp_path)


@pytest.mark.slow
def test_all_kernels_match_loops(tmp_path):
  check(TENSOR_CORES | SIMT, tmp_path)
