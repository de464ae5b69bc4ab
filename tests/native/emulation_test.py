"""Tests of the CUDA kernels on an emulated GPU, which need only a C++ compiler."""

import os
import re
import subprocess

import pytest

from sasa_tf.errors import UserError
from sasa_tf.native import build
from tests.native import emulation

try:
  build.find_compilers()
  COMPILER = True
except UserError:
  COMPILER = False
pytestmark = pytest.mark.skipif(not COMPILER, reason="there is no C++ compiler")

# The error or output of check_emulator for each fault.
FAULTS = {
  "missing_barrier": "incorrect",
  "missing_warp_barrier": "incorrect",
  "missing_wait": "incorrect",
  "uninitialized": "incorrect",
  "uninitialized_static": "incorrect",
  "address_out_of_bounds": "byte 1024 of 1024 bytes of shared memory",
  "address_misaligned": "not a multiple of 16",
  "write_out_of_bounds": "wrote at byte 1024",
  "array_out_of_bounds": "invalid memory access at",
  "divergence": "is at __syncthreads.* it is at __shfl_xor_sync",
  "divergent_barrier": "is at __syncthreads.* it is at the one at",
  "missing_tma_wait": "incorrect",
  "tma_bytes": "expects 1024 bytes, and 512 were loaded",
  "tma_misaligned": "not a multiple of 128",
  "missing_mbarrier_wait": "incorrect",
  "mbarrier_deadlock": "waits forever at",
  "missing_wgmma_wait": "incorrect",
  "wgmma_operands": "lanes of a warp have different wgmma operands",
  "exited_lanes": "have exited, and the others are at LdmatrixX4",
}


def run(program, *arguments, seed=1):
  environment = {**os.environ, "SASA_EMULATION_SEED": str(seed)}
  return subprocess.run(
    [str(program), *map(str, arguments)], env=environment, capture_output=True, text=True
  )


@pytest.fixture(scope="module")
def emulator(tmp_path_factory):
  return emulation.compile_emulator(tmp_path_factory.mktemp("emulator"))


CHECKS = (
  "check_cuda_kernels",
  "check_cuda_stem_kernels",
  "check_cuda_projections",
  "check_cuda_projection_backward",
)
# Problems that the one-pass backward kernel supports.
ONE_PASS = ("--one_pass=1", "--dilation=1", "--key=1", "--type=bfloat16")
# Problems that the kernels for small images support.
ROWS = ("--rows=1", "--dilation=1", "--key=1", "--type=bfloat16")
ROWS_FORWARD = (*ROWS, "--backward=0")


@pytest.fixture(scope="module")
def programs(tmp_path_factory):
  folder = tmp_path_factory.mktemp("kernels")
  names = (*CHECKS, "check_repeated_passes")
  return emulation.compile_checks(names, folder, emulation.FAST_TO_COMPILE)


@pytest.fixture(scope="module")
def kernels(programs):
  return programs[0]


@pytest.fixture(scope="module")
def stem_kernels(programs):
  return programs[1]


@pytest.fixture(scope="module")
def projections(programs):
  return programs[2]


@pytest.fixture(scope="module")
def projection_backward(programs):
  return programs[3]


@pytest.fixture(scope="module")
def repeated_passes(programs):
  return programs[4]


def assert_agrees(result):
  assert result.returncode == 0, result.stdout + result.stderr
  assert "agree" in result.stdout


@pytest.mark.parametrize("name", ["half_types", "none", "tma", "mbarrier", "wgmma"])
def test_emulator_is_correct(emulator, name):
  result = run(emulator, name)
  assert (result.returncode, result.stdout) == (0, "correct\n"), result.stderr


@pytest.mark.parametrize("fault", FAULTS)
def test_emulator_detects_fault(emulator, fault):
  result = run(emulator, fault)
  assert result.returncode == 1
  assert re.search(FAULTS[fault], result.stdout + result.stderr)


@pytest.mark.parametrize("kernel", [3, 5, 7, 9, 11])
@pytest.mark.parametrize("depth", [4, 8, 16, 32, 64])
def test_mma_kernels_match_loops(kernels, depth, kernel):
  flags = (f"--depth={depth}", f"--kernel={kernel}")
  assert_agrees(run(kernels, 4, depth // 4, *flags, "--type=bfloat16"))
  if kernel == 7:
    assert_agrees(run(kernels, 4, depth // 4, *flags, "--type=float16"))
  if depth >= 32 and kernel <= 7:
    # Too wide for the kernels for small images.
    assert_agrees(run(kernels, 1, kernel, *flags, "--type=bfloat16", "--width=18"))


@pytest.mark.parametrize("kernel", [3, 5, 7, 9, 11])
@pytest.mark.parametrize("depth", [4, 8, 16, 32, 64])
def test_mma_kernels_pool(kernels, depth, kernel):
  flags = ("--height=10", "--width=18", "--dilation=1", "--pool=2", "--type=bfloat16")
  assert_agrees(run(kernels, 1, kernel, *flags, f"--depth={depth}", f"--kernel={kernel}"))


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("kernel", [3, 5, 7])
@pytest.mark.parametrize("depth", [8, 16])
def test_one_pass_backward_kernel_matches_loops(kernels, depth, kernel, seed):
  flags = (*ONE_PASS, f"--depth={depth}", f"--kernel={kernel}")
  assert_agrees(run(kernels, 4, 10 * seed, *flags, seed=seed))
  # Several images in a CTA, whose rows of tiles are no multiple of the warps.
  size = ("--height=21", "--width=28", "--heads=4", "--batch=2")
  assert_agrees(run(kernels, 1, seed, *flags, *size, seed=seed))
  # With heads 16 wide, another kernel.
  size = ("--height=9", "--width=37", "--heads=2")
  assert_agrees(run(kernels, 1, seed, *flags, *size, seed=seed))


@pytest.mark.parametrize("kernel", [3, 5, 7])
@pytest.mark.parametrize("depth", [8, 16])
def test_one_pass_backward_kernel_with_many_low_images(kernels, depth, kernel):
  """The shared memory has no space for the keys of as many images as there are warps."""
  size = ("--batch=24", "--height=2", "--width=5", "--heads=2")
  assert_agrees(run(kernels, 1, 1, *ONE_PASS, f"--depth={depth}", f"--kernel={kernel}", *size))


@pytest.mark.parametrize("kind", [1, 2], ids=["NaN", "infinity"])
@pytest.mark.parametrize("kernel", [3, 5, 7])
@pytest.mark.parametrize("depth", [8, 16])
def test_one_pass_backward_kernel_does_not_hide_nonfinite_elements(kernels, depth, kernel, kind):
  flags = (*ONE_PASS, f"--depth={depth}", f"--kernel={kernel}")
  assert_agrees(run(kernels, 4, 21, *flags, f"--nonfinite={kind}"))


@pytest.mark.parametrize("kernel", [3, 5, 7])
@pytest.mark.parametrize("depth", [32, 64])
def test_forward_kernel_for_small_images_matches_loops(kernels, depth, kernel):
  flags = (*ROWS_FORWARD, f"--depth={depth}", f"--kernel={kernel}")
  assert_agrees(run(kernels, 3, kernel, *flags))
  # Rows of 8 and of 16 columns, several images in a CTA, with pooling and without.
  for side, pool in ((8, 2), (7, 1), (14, 2), (16, 1)):
    size = (f"--height={side}", f"--width={side}", "--heads=3", "--batch=2", f"--pool={pool}")
    assert_agrees(run(kernels, 1, side, *flags, *size, seed=2))


@pytest.mark.parametrize("depth", [32, 64])
def test_forward_kernel_for_small_images_with_overflowing_exponentials(kernels, depth):
  flags = (*ROWS_FORWARD, f"--depth={depth}", "--kernel=7", "--scale=16")
  for mask in (0, 1):
    assert_agrees(run(kernels, 3, 31, *flags, f"--mask={mask}"))


@pytest.mark.parametrize("kind", [1, 2], ids=["NaN", "infinity"])
@pytest.mark.parametrize("depth", [32, 64])
def test_forward_kernel_for_small_images_does_not_hide_nonfinite_elements(kernels, depth, kind):
  flags = (*ROWS_FORWARD, f"--depth={depth}", f"--nonfinite={kind}", "--kernel=7")
  assert_agrees(run(kernels, 4, 41, *flags))


def row_backward_flags(depth, kernel):
  # Shared memory is for at most 13 rows of heads 64 wide.
  height = ("--height=13",) if depth == 64 else ()
  return (*ROWS, f"--depth={depth}", f"--kernel={kernel}", *height)


@pytest.mark.parametrize("kernel", [3, 5, 7])
@pytest.mark.parametrize("depth", [32, 64])
def test_backward_kernel_for_small_images_matches_loops(kernels, depth, kernel):
  flags = row_backward_flags(depth, kernel)
  assert_agrees(run(kernels, 3, 10 * kernel, *flags))
  # Two rows in a row tile. With an odd height, the last one has a row that is not in the image.
  for seed, height in enumerate((1, 4, 5, 7, 8), start=100 * kernel):
    assert_agrees(run(kernels, 1, seed, *flags, f"--height={height}", "--width=7", seed=seed))
  # More images than CTAs, which compute them one after another.
  assert_agrees(run(kernels, 1, kernel, *flags, "--height=3", "--width=10", "--batch=5"))
  for size in (("--height=6", "--width=12", "--batch=3"), ("--height=8", "--width=6")):
    assert_agrees(run(kernels, 1, kernel, *flags, *size, "--pool=2"))


@pytest.mark.parametrize("kind", [1, 2], ids=["NaN", "infinity"])
@pytest.mark.parametrize("kernel", [3, 5, 7])
@pytest.mark.parametrize("depth", [32, 64])
def test_backward_kernel_for_small_images_does_not_hide_nonfinite_elements(
  kernels, depth, kernel, kind
):
  flags = (*row_backward_flags(depth, kernel), f"--nonfinite={kind}")
  assert_agrees(run(kernels, 2, 21, *flags))
  assert_agrees(run(kernels, 2, 31, *flags, "--height=7", "--width=7"))


def test_repeated_passes_have_the_same_bits(repeated_passes):
  result = run(repeated_passes, 3)
  assert result.returncode == 0, result.stdout + result.stderr
  assert "3 passes of each of 2 shapes have the same bits" in result.stdout


@pytest.mark.parametrize("kernel", [3, 7, 9])
@pytest.mark.parametrize("depth", [8, 16])
def test_mma_forward_with_overflowing_exponentials(kernels, depth, kernel):
  """The softmax is then computed again with the row maximum subtracted.

  The gradients of such a softmax are differences of nearly equal numbers, so they are not compared.
  """
  flags = (f"--depth={depth}", "--type=bfloat16", f"--kernel={kernel}", "--relative=0", "--key=1")
  assert_agrees(run(kernels, 4, 70, *flags, "--scale=16", "--backward=0"))


def test_simt_kernels_match_loops(kernels):
  assert_agrees(run(kernels, 8, 1, "--type=float32"))
  assert_agrees(run(kernels, 8, 1))


@pytest.mark.parametrize("kind", [1, 2], ids=["NaN", "infinity"])
@pytest.mark.parametrize(
  "flags",
  [
    *[("--kernel=7", "--type=bfloat16", f"--depth={depth}") for depth in (8, 16, 32, 64)],
    *[(f"--kernel={kernel}", "--type=bfloat16", "--depth=8") for kernel in (3, 5, 9, 11)],
    ("--kernel=5", "--type=bfloat16", "--depth=4"),
    ("--kernel=7", "--type=float16", "--depth=16"),
    ("--type=float32",),
  ],
  ids=" ".join,
)
def test_kernels_do_not_hide_nonfinite_elements(kernels, flags, kind):
  assert_agrees(run(kernels, 6, 11, f"--nonfinite={kind}", *flags))


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_mma_stem_kernels_match_loops(stem_kernels, channels):
  for kind in ("bfloat16", "float16"):
    shape = ("--rows=4", "--columns=4", "--depth=16", f"--channels={channels}", f"--type={kind}")
    assert_agrees(run(stem_kernels, 4, channels, *shape))


def test_simt_stem_kernels_match_loops(stem_kernels):
  assert_agrees(run(stem_kernels, 6, 1, "--type=float32"))
  assert_agrees(run(stem_kernels, 6, 1, "--rows=5", "--depth=20"))


@pytest.mark.parametrize("kind", [1, 2], ids=["NaN", "infinity"])
def test_stem_kernels_do_not_hide_nonfinite_elements(stem_kernels, kind):
  for flags in (("--rows=4", "--columns=4", "--depth=16", "--type=bfloat16"), ("--type=float32",)):
    assert_agrees(run(stem_kernels, 6, 21, f"--nonfinite={kind}", *flags))


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("kernel", [3, 5, 7])
def test_kernel_with_projections_matches_loops(projections, kernel, seed):
  window = f"--kernel={kernel}"
  assert_agrees(run(projections, 6, 100 * seed, window, seed=seed))
  # Two columns of tiles, and heads that are no multiple of a tile's.
  size = ("--height=22", "--width=56", "--heads=3", "--batch=1")
  assert_agrees(run(projections, 1, seed, window, *size, seed=seed))
  # More images of a few rows than CTAs: warps of the backward pass compute several at a time.
  size = ("--height=3", "--width=9", "--heads=3", "--batch=37")
  assert_agrees(run(projections, 1, seed, window, *size, seed=seed))


def test_kernel_with_projections_and_overflowing_exponentials(projections):
  # The gradients have sums of terms in the thousands that cancel.
  assert_agrees(run(projections, 8, 1, "--scale=4", "--backward=0"))


@pytest.mark.parametrize("kind", [1, 2], ids=["NaN", "infinity"])
def test_kernel_with_projections_does_not_hide_nonfinite_elements(projections, kind):
  assert_agrees(run(projections, 12, 1, f"--nonfinite={kind}"))


@pytest.mark.parametrize("channels", [64, 128])
def test_backward_pass_of_projections_matches_loops(projection_backward, channels):
  flags = (f"--channels={channels}",)
  assert_agrees(run(projection_backward, 6, channels, *flags))
  # Less than a tile, whole tiles, and one pixel more; more tiles than stages of shared memory.
  for pixels in (1, 63, 64, 129, 2000):
    assert_agrees(run(projection_backward, 1, pixels, *flags, f"--pixels={pixels}", seed=2))


@pytest.mark.parametrize("kind", [1, 2], ids=["NaN", "infinity"])
def test_backward_pass_of_projections_does_not_hide_nonfinite_elements(projection_backward, kind):
  assert_agrees(run(projection_backward, 8, 1, f"--nonfinite={kind}"))


@pytest.mark.slow
def test_many_problems_match_loops(tmp_path):
  for program in emulation.compile_checks(CHECKS, tmp_path, emulation.FAST_TO_RUN):
    assert_agrees(run(program, 400, 1000))
    assert_agrees(run(program, 100, 1000, seed=2))


@pytest.mark.slow
def test_kernels_pass_sanitizers(tmp_path):
  """AddressSanitizer and UndefinedBehaviorSanitizer."""
  for program in emulation.compile_checks(CHECKS, tmp_path, emulation.SANITIZE):
    assert_agrees(run(program, 60, 1))
