"""The kernels of exported models on an emulated GPU, against loops in double precision."""

import os
import subprocess

import pytest

from sasa_tf.errors import UserError
from sasa_tf.native import build
from sasa_tf.ops.portable.kernel import ALL_TENSOR_CORES, PortableKernel
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
  "width 4": PortableKernel("bfloat16", (11, 31), 3, 4, SEVEN, 0.3),
}
# Other windows: each configuration.
TENSOR_CORES |= {
  f"window {size}, width {depth}{', pooled' * (border == 'mask')}": PortableKernel(
    "bfloat16",
    (18, 34 if depth < 32 else 18),
    3 if depth < 32 else 1,
    depth,
    WindowGeometry((size, size), (1, 1), border),
    0.2,
    pool_size=1 + (border == "mask"),
  )
  for size in (3, 5, 9, 11)
  for depth in (4, 8, 16, 32, 64)
  for border in (("zero", "mask") if depth in (8, 32) else ("zero",))
  if (size, depth) != (11, 64)  # does not fit
}
SIMT = {
  "float32": PortableKernel("float32", (13, 10), 3, 8, SEVEN, 0.3),
  "3 x 5 window": PortableKernel(
    "bfloat16", (9, 12), 2, 24, WindowGeometry((3, 5), (2, 1), "mask"), 0.2
  ),
}
FAST = ("width 16, pooled", "width 32, no positions", "3 x 5 window", "window 3, width 8, pooled")


@pytest.fixture(autouse=True)
def all_tensor_cores(monkeypatch):
  monkeypatch.setenv(ALL_TENSOR_CORES, "all")


def test_tensor_cores_are_used():
  assert all(kernel.uses_tensor_cores for kernel in TENSOR_CORES.values())
  assert not any(kernel.uses_tensor_cores for kernel in SIMT.values())
  window = WindowGeometry((11, 11), (1, 1), "zero")
  assert not PortableKernel("bfloat16", (18, 18), 1, 64, window, 0.2).uses_tensor_cores


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
