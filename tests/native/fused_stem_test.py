"""The compiled kernels of stem attention equal TensorFlow's operations."""

import os
import subprocess
import sys

import hypothesis
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import strategies as st

from sasa_tf import ops
from sasa_tf.native import library
from sasa_tf.ops.compiled import fused_stem
from sasa_tf.ops.stem.absorbed_attention import block_attention_2d_absorbed

pytestmark = pytest.mark.skipif(
  "fused" not in ops.available_implementations(), reason="the compiled kernels have not been built"
)

TOLERANCE = {tf.float32: 1e-4, tf.float16: 4e-3, tf.bfloat16: 2e-2}


def normal(shape, seed, dtype=tf.float32):
  return tf.cast(tf.random.stateless_normal(shape, [7, seed]), dtype)


def sources(size, block, channels=3, heads=2, depth=8, dtype=tf.float32):
  """Returns pixels, the three projections, and the output's gradient."""
  positions = block[0] * block[1]
  return [
    normal([*size, channels], 0, dtype),
    normal([channels, heads, depth], 1),
    normal([channels, heads, depth], 2),
    normal([positions, channels, heads, depth], 3),
    normal([*size, heads * depth], 4, dtype),
  ]


def run(tensors, block, implementation, wanted=slice(1, 4), jit=False, signature=None):
  """Returns the output and the gradients of the `wanted` tensors."""

  def step(*tensors):
    *inputs, upstream = tensors
    with tf.GradientTape() as tape:
      tape.watch(inputs[wanted])
      output = block_attention_2d_absorbed(*inputs, block_size=block, scale=0.7)
    return [output, *tape.gradient(output, inputs[wanted], upstream)]

  with ops.use_implementation(implementation):
    return tf.function(step, jit_compile=jit, autograph=False, input_signature=signature)(*tensors)


def assert_agree(found, expected, dtype=tf.float32):
  """Compares the output, and the gradients relative to the largest of all gradients."""
  arrays = [tf.cast(tensor, tf.float32).numpy() for tensor in expected]
  largest = [np.abs(array).max(initial=1e-3) for array in arrays]
  scales = [largest[0], *[max(largest[1:])] * (len(largest) - 1)]
  for one, other, array, scale in zip(found, expected, arrays, scales, strict=True):
    assert one.dtype == other.dtype
    np.testing.assert_allclose(
      tf.cast(one, tf.float32), array, atol=TOLERANCE[dtype] * scale, rtol=0
    )


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("dtype", TOLERANCE, ids=lambda dtype: dtype.name)
@pytest.mark.parametrize(
  ("size", "block"),
  [
    ((2, 8, 12), (4, 4)),
    ((1, 7, 13), (4, 4)),  # blocks that exceed the image on all sides
    ((2, 3, 3), (4, 4)),  # an image smaller than a block
    ((1, 10, 6), (2, 3)),
    ((1, 16, 9), (8, 8)),
    ((3, 5, 4), (1, 1)),
    ((1, 20, 21), (5, 7)),
  ],
)
def test_equals_tensorflow_operations(size, block, dtype, jit):
  tensors = sources(size, block, dtype=dtype)
  exact = [tf.cast(tensor, tf.float32) for tensor in tensors]
  expected = run(exact, block, "reference")
  expected[0] = tf.cast(expected[0], dtype)
  assert_agree(run(tensors, block, "fused", jit=jit), expected, dtype)


@st.composite
def problems(draw):
  """Draws [B, H, W], block, C, N, D and dtype."""
  size = st.integers(1, 20)
  block = (draw(st.integers(1, 8)), draw(st.integers(1, 8)))
  depth = draw(st.integers(1, 24) | st.sampled_from([32, 64, 128]))
  return (
    (draw(st.integers(1, 3)), draw(size), draw(size)),
    block,
    draw(st.integers(1, 4)),
    draw(st.integers(1, 4)),
    depth,
    draw(st.sampled_from(list(TOLERANCE))),
  )


def _assert_matches_the_reference(problem):
  block, dtype = problem[1], problem[-1]
  tensors = sources(*problem)
  exact = [tf.cast(tensor, tf.float32) for tensor in tensors]
  expected = run(exact, block, "reference")
  expected[0] = tf.cast(expected[0], dtype)
  assert_agree(run(tensors, block, "fused"), expected, dtype)


@hypothesis.settings(max_examples=25, deadline=None, derandomize=True, database=None)
@hypothesis.given(problems())
def test_random_problems(problem):
  _assert_matches_the_reference(problem)


@pytest.mark.slow
@hypothesis.settings(max_examples=1000, deadline=None, database=None)
@hypothesis.given(problems())
def test_many_random_problems(problem):
  _assert_matches_the_reference(problem)


def test_pixel_gradients_and_second_derivatives():
  block = (4, 4)
  tensors = sources((1, 8, 8), block)
  everything = slice(0, 4)
  assert_agree(
    run(tensors, block, "fused", everything), run(tensors, block, "reference", everything)
  )

  def penalty_gradients(implementation):
    @tf.function
    def step(*inputs):
      with tf.GradientTape() as outer:
        outer.watch(inputs)
        with tf.GradientTape() as inner:
          inner.watch(inputs[0])
          loss = tf.reduce_sum(block_attention_2d_absorbed(*inputs) ** 2)
        penalty = tf.reduce_sum(inner.gradient(loss, inputs[0]) ** 2)
      return outer.gradient(penalty, inputs)

    with ops.use_implementation(implementation):
      return step(*tensors[:4])

  assert_agree(penalty_gradients("fused"), penalty_gradients("reference"))


def test_unknown_sizes():
  block = (4, 4)
  unknown = [tf.TensorSpec([None, None, None, last]) for last in (3, 16)]
  signature = [unknown[0], *[tf.TensorSpec(t.shape) for t in sources((1, 1, 1), block)[1:4]]]
  signature.append(unknown[1])
  for size in ((2, 9, 11), (1, 4, 4), (0, 4, 4)):
    tensors = sources(size, block)
    found = run(tensors, block, "fused", signature=signature)
    assert_agree(found, run(tensors, block, "reference"))


@pytest.mark.parametrize(
  ("shape", "block", "depth", "dtype", "reason"),
  [
    ((1, 8, 8, 5), (4, 4), 8, tf.float32, "up to 4 input channels, not 5"),
    ((1, 8, 8, 3), (9, 9), 8, tf.float32, "up to 64 pixels in a block, not 81"),
    ((1, 8, 8, 3), (4, 4), 129, tf.float32, "up to 128 channels in a head, not 129"),
    ((1, 8, 8, 3), (4, 4), 8, tf.float64, "float32, bfloat16, float16, not float64"),
  ],
)
def test_unsupported_arguments(shape, block, depth, dtype, reason):
  assert reason in fused_stem.unsupported_reason(tf.TensorSpec(shape, dtype), block, depth)


@pytest.mark.parametrize(
  ("device", "platforms", "reason"),
  [
    ("CPU", ("CPU",), None),
    ("GPU", ("CPU", "CUDA"), None),
    ("GPU", ("CPU",), "for CPUs only"),
    ("TPU", ("CPU", "CUDA"), "no compiled kernels of block attention for a TPU"),
  ],
)
def test_supported_devices(monkeypatch, device, platforms, reason):
  built = library.Library(platforms, "built for CPUs only")
  monkeypatch.setattr(library, "load", lambda: built)
  with ops.use_target_device(device):
    found = fused_stem.unsupported_reason(tf.TensorSpec([1, 8, 8, 3]), (4, 4), 8)
  assert found is None if reason is None else reason in found


def test_reason_without_a_library(monkeypatch):
  monkeypatch.setattr(library, "load", lambda: library.Library((), "not built"))
  assert fused_stem.unsupported_reason(tf.TensorSpec([1, 8, 8, 3]), (4, 4), 8) == "not built"


_BITS = """
import hashlib, sys
import tensorflow as tf
tf.config.threading.set_intra_op_parallelism_threads(int(sys.argv[1]))
from tests.native.fused_stem_test import run, sources
tensors = sources((3, 39, 41), (4, 4), heads=4, depth=16)
results = run(tensors, (4, 4), "fused")
print(hashlib.sha256(b"".join(r.numpy().tobytes() for r in results)).hexdigest())
"""


def _bits(threads, instructions):
  environment = {**os.environ, "SASA_TF_NATIVE_CPU": instructions}
  command = [sys.executable, "-c", _BITS, str(threads)]
  return subprocess.run(
    command, env=environment, capture_output=True, text=True, check=True
  ).stdout.strip()


def test_results_do_not_depend_on_threads():
  assert _bits(1, "avx512") == _bits(2, "avx512")


@pytest.mark.parametrize("instructions", ["plain", "avx2"])
def test_other_instruction_sets(instructions):
  code = (
    "from tests.native.fused_stem_test import assert_agree, run, sources\n"
    "for size in ((2, 8, 12), (1, 7, 13)):\n"
    "  tensors = sources(size, (4, 4), heads=3, depth=12)\n"
    "  assert_agree(run(tensors, (4, 4), 'fused'), run(tensors, (4, 4), 'reference'))\n"
  )
  environment = {**os.environ, "SASA_TF_NATIVE_CPU": instructions}
  subprocess.run([sys.executable, "-c", code], env=environment, check=True)
