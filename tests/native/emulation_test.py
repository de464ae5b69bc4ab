"""The CUDA kernels on an emulated GPU, where the C++ compiler is enough."""

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

FAULTS = {
  "missing_barrier": "wrong",
  "missing_warp_barrier": "wrong",
  "missing_wait": "wrong",
  "unwritten": "wrong",
  "unwritten_static": "wrong",
  "address_beyond": "byte 1024 of 1024 of shared memory",
  "address_between": "not a multiple of 16",
  "write_beyond": "and one wrote at 1024",
  "array_beyond": "no memory at",
  "divergence": "is at __syncthreads.* came to __shfl_xor_sync",
  "barrier_in_branch": "is at __syncthreads.* came to the one at",
  "missing_box_wait": "wrong",
  "box_too_few": "1024 bytes were to come in boxes, 512 were copied",
  "box_between": "not a multiple of 128",
  "returned_lanes": "have returned, and the others are at LdmatrixX4",
}


def run(program, *arguments, seed=1):
  environment = {**os.environ, "SASA_EMULATION_SEED": str(seed)}
  return subprocess.run(
    [str(program), *map(str, arguments)], env=environment, capture_output=True, text=True
  )


@pytest.fixture(scope="module")
def emulator(tmp_path_factory):
  return emulation.compile_emulator(tmp_path_factory.mktemp("emulator"))


CHECKS = ("check_cuda_kernels", "check_cuda_stem_kernels")


@pytest.fixture(scope="module")
def programs(tmp_path_factory):
  folder = tmp_path_factory.mktemp("kernels")
  return emulation.compile_checks(CHECKS, folder, emulation.FAST_TO_COMPILE)


@pytest.fixture(scope="module")
def kernels(programs):
  return programs[0]


@pytest.fixture(scope="module")
def pixel_kernels(programs):
  return programs[1]


def agrees(result):
  assert result.returncode == 0, result.stdout + result.stderr
  assert "agree" in result.stdout


@pytest.mark.parametrize("name", ["numbers", "none", "boxes"])
def test_the_emulator_computes_right(emulator, name):
  result = run(emulator, name)
  assert (result.returncode, result.stdout) == (0, "right\n"), result.stderr


@pytest.mark.parametrize("fault", FAULTS)
def test_the_emulator_shows_faults_of_kernels(emulator, fault):
  result = run(emulator, fault)
  assert result.returncode == 1
  assert re.search(FAULTS[fault], result.stdout + result.stderr)


@pytest.mark.parametrize("depth", [8, 16, 32, 64])
def test_the_tensor_cores_kernels_compute_the_same_as_loops(kernels, depth):
  for kind in ("bfloat16", "float16"):
    agrees(run(kernels, 4, depth // 8, f"--depth={depth}", f"--type={kind}", "--kernel=7"))


@pytest.mark.parametrize("depth", [8, 16])
def test_logits_whose_exponentials_do_not_exist(kernels, depth):
  """Kernels that do not look for the largest logit notice, and then do."""
  flags = (f"--depth={depth}", "--type=bfloat16", "--kernel=7", "--relative=0", "--key=1")
  agrees(run(kernels, 4, 70, *flags, "--scale=16"))


def test_the_other_kernels_compute_the_same_as_loops(kernels):
  agrees(run(kernels, 8, 1, "--type=float32"))
  agrees(run(kernels, 8, 1))


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_the_tensor_cores_kernels_of_the_stem_compute_the_same_as_loops(pixel_kernels, channels):
  for kind in ("bfloat16", "float16"):
    shape = ("--rows=4", "--columns=4", "--depth=16", f"--channels={channels}", f"--type={kind}")
    agrees(run(pixel_kernels, 4, channels, *shape))


def test_the_other_kernels_of_the_stem_compute_the_same_as_loops(pixel_kernels):
  agrees(run(pixel_kernels, 6, 1, "--type=float32"))
  agrees(run(pixel_kernels, 6, 1, "--rows=5", "--depth=20"))


@pytest.mark.slow
def test_many_problems_compute_the_same_as_loops(tmp_path):
  for program in emulation.compile_checks(CHECKS, tmp_path, emulation.FAST_TO_RUN):
    agrees(run(program, 400, 1000))
    agrees(run(program, 100, 1000, seed=2))


@pytest.mark.slow
def test_kernels_stay_within_their_memory(tmp_path):
  """Under AddressSanitizer and UndefinedBehaviorSanitizer."""
  for program in emulation.compile_checks(CHECKS, tmp_path, emulation.SANITIZE):
    agrees(run(program, 60, 1))
