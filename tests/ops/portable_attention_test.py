"""Kernels as text inside of exported functions: selection, and results on a GPU."""

import numpy as np
import pytest
import tensorflow as tf

from sasa_tf import ops
from sasa_tf.native import portable
from sasa_tf.ops.export_context import (
  ExportedGpuKernels,
  gpu_kernels_for_export,
  is_tracing_for_export,
)
from sasa_tf.ops.portable.kernel import ALL_TENSOR_CORES
from tests.ops.portable_ptx import PTX

GPUS = tf.config.list_physical_devices("GPU")


@pytest.fixture
def fake_ptx(monkeypatch):
  monkeypatch.setattr(portable, "compile_kernel", lambda macros: PTX)


def _traced(kernels, shape, *, dtype=tf.bfloat16, kernel_size=7, jit_compile=True, **arguments):
  """Returns a function of packed QKV and tables that was traced with the kernels."""
  tables = [tf.TensorSpec([kernel_size, shape[-1] // 2], tf.float32)] * 2
  signature = [tf.TensorSpec(shape, dtype), *tables]

  @tf.function(jit_compile=jit_compile, input_signature=signature)
  def attend(qkv, rows, columns):
    assert is_tracing_for_export()
    return ops.local_attention_2d_qkv_packed(
      qkv, rows, columns, kernel_size=kernel_size, **arguments
    )

  with gpu_kernels_for_export(kernels):
    attend.get_concrete_function()
  return attend


def _operations(function):
  return [op.type for op in function.get_concrete_function().graph.get_operations()]


@pytest.mark.parametrize("kernel_format", ["ptx", "triton"])
def test_context_selects_kernels(fake_ptx, kernel_format):
  kernels = ExportedGpuKernels(kernel_format)
  function = _traced(kernels, [None, 14, 14, 3, 2, 16], pool_size=2)
  assert (kernels.layers, kernels.stock) == (1, [])
  assert _operations(function).count("XlaCallModule") == 1
  assert function.get_concrete_function().output_shapes == (None, 7, 7, 2, 16)


def test_pooling_of_an_odd_image_is_stock(fake_ptx):
  function = _traced(ExportedGpuKernels("ptx"), [2, 7, 7, 3, 2, 16], pool_size=2)
  assert {"XlaCallModule", "AvgPool"} <= set(_operations(function))
  assert function.get_concrete_function().output_shapes == (2, 4, 4, 2, 16)


@pytest.mark.parametrize(
  ("shape", "arguments", "reason"),
  [
    ([None, None, 14, 3, 2, 16], {}, "fixed image size"),
    ([2, 14, 14, 3, 2, 16], {"kernel_size": 13}, "windows of up to 11"),
    ([2, 14, 14, 3, 2, 6], {}, "divisible by 4"),
  ],
)
def test_unsupported_attention_is_stock(shape, arguments, reason):
  kernels = ExportedGpuKernels("ptx")
  function = _traced(kernels, shape, **arguments)
  assert kernels.layers == 0
  assert len(kernels.stock) == 1
  assert reason in kernels.stock[0]
  assert "XlaCallModule" not in _operations(function)


def test_named_and_overridden_implementations_are_kept():
  kernels = ExportedGpuKernels("ptx")
  shape = [2, 14, 14, 3, 2, 16]
  for function in (_traced(kernels, shape, implementation="blocked"),):
    assert "XlaCallModule" not in _operations(function)
  with ops.use_implementation("blocked"):
    assert "XlaCallModule" not in _operations(_traced(kernels, shape))
  assert kernels.layers == 0


def test_separate_query_key_and_value(fake_ptx):
  kernels = ExportedGpuKernels("ptx")

  @tf.function(input_signature=[tf.TensorSpec([2, 14, 14, 2, 16], tf.bfloat16)] * 3)
  def attend(query, key, value):
    return ops.local_attention_2d(query, key, value)

  with gpu_kernels_for_export(kernels):
    attend.get_concrete_function()
  assert kernels.layers == 1
  assert {"XlaCallModule", "Pack"} <= set(_operations(attend))


def test_saved_model_keeps_the_text_and_names_the_platform(fake_ptx, tmp_path):
  function = _traced(ExportedGpuKernels("ptx"), [None, 14, 14, 3, 2, 16])
  module = tf.Module()
  module.attend = function
  concrete = function.get_concrete_function()
  tf.saved_model.save(module, tmp_path, signatures={"gpu": concrete})
  assert b"__gpu$xla.gpu.ptx" in (tmp_path / "saved_model.pb").read_bytes()
  attend = tf.saved_model.load(tmp_path).signatures["gpu"]
  if not GPUS:
    with pytest.raises(tf.errors.NotFoundError, match="CPU is not among the platforms"):
      attend(
        qkv=tf.zeros([1, 14, 14, 3, 2, 16], tf.bfloat16),
        rows=tf.zeros([7, 8]),
        columns=tf.zeros([7, 8]),
      )


@pytest.mark.gpu
@pytest.mark.skipif(portable.find_nvcc() is None, reason="nvcc is not installed")
@pytest.mark.parametrize(
  ("shape", "arguments"),
  [
    ([2, 56, 56, 3, 8, 8], {}),
    ([2, 28, 28, 3, 8, 16], {"pool_size": 2}),
    ([3, 14, 14, 3, 4, 32], {"border": "mask"}),
    ([1, 7, 7, 3, 8, 64], {}),
    ([2, 20, 12, 2, 3, 16], {"scale": 0.5}),
    ([2, 20, 12, 3, 3, 24], {"kernel_size": 5, "dilation_rate": 2}),
    ([2, 56, 56, 3, 8, 8], {"kernel_size": 3}),
    ([2, 28, 28, 3, 8, 16], {"kernel_size": 5, "pool_size": 2}),
    ([2, 28, 28, 3, 8, 32], {"kernel_size": 9, "dilation_rate": 2}),
    ([2, 28, 28, 3, 4, 64], {"kernel_size": 9}),
    ([2, 56, 56, 3, 8, 8], {"kernel_size": 11, "border": "mask"}),
    ([2, 28, 28, 3, 3, 64], {"kernel_size": 11}),
    ([2, 28, 28, 3, 8, 4], {}),
    ([2, 20, 12, 3, 3, 16], {"dtype": tf.float32}),
  ],
  ids=str,
)
def test_kernels_match_the_reference_on_a_gpu(shape, arguments, monkeypatch):
  monkeypatch.setenv(ALL_TENSOR_CORES, "all")
  known = tuple(int(part) for part in tf.__version__.split(".")[:2])
  formats = ["triton", "ptx"] if known >= (2, 21) else ["triton"]
  dtype = arguments.get("dtype", tf.bfloat16)
  generator = np.random.default_rng(1)
  size = arguments.get("kernel_size", 7)
  qkv = tf.constant(generator.normal(size=shape), dtype)
  tables = [tf.constant(generator.normal(size=[size, shape[-1] // 2]), tf.float32)] * 2
  plain = {name: value for name, value in arguments.items() if name != "dtype"}
  expected = ops.local_attention_2d_qkv_packed(
    tf.cast(qkv, tf.float32), *tables, implementation="reference", **plain
  )
  for kernel_format in formats:
    function = _traced(ExportedGpuKernels(kernel_format), [None, *shape[1:]], **arguments)
    result = tf.cast(function(qkv, *tables), tf.float32)
    tolerance = 1e-4 if dtype == tf.float32 else 2e-2
    np.testing.assert_allclose(result, expected, rtol=tolerance, atol=4 * tolerance)
