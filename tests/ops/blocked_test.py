"""Properties of `blocked` alone: block sizes, HaloNet's relaxation, memory, LiteRT."""

import math
import re

import numpy as np
import pytest
import tensorflow as tf

from sasa_tf.ops.blocked import chunked_map
from sasa_tf.ops.blocked import local_attention as blocked
from sasa_tf.ops.checks import window_geometry
from sasa_tf.ops.types import DEVICES
from sasa_tf.ops.xla_barriers import use_target_device
from tests.ops import oracle
from tests.ops.cases import Case, assert_close, attention, inputs, output_and_gradients


def _blocked_attention(case, block, **arguments):
  geometry = window_geometry(**case.arguments)
  return lambda *tensors: blocked.local_attention(*tensors, geometry, 0.7, block=block, **arguments)


@pytest.mark.parametrize("border", ["zero", "mask"])
@pytest.mark.parametrize("dilation_rate", [(1, 1), (2, 1)])
@pytest.mark.parametrize("block", [(1, 1), (2, 3), (9, 2), (4, 8), (9, 8), (16, 16)])
def test_block_size_does_not_change_results(block, dilation_rate, border):
  case = Case((2, 9, 8, 1, 2), (5, 9), dilation_rate, border)
  tensors = inputs(case)
  expected = output_and_gradients(attention(case, "reference", scale=0.7), tensors)
  assert_close(output_and_gradients(_blocked_attention(case, block), tensors), expected, 1e-10)


@pytest.mark.parametrize("relative", [True, False])
@pytest.mark.parametrize("border", ["zero", "mask"])
def test_without_window_mask_queries_attend_to_the_whole_tile(border, relative):
  case = Case((1, 7, 10, 1, 4), (3, 5), border=border)
  *tensors, _ = inputs(case)
  tensors = tensors if relative else tensors[:3]
  expected = oracle.halo_attention(
    *[t.numpy() for t in tensors], kernel_size=case.kernel_size, border=border
  )
  assert_close([attention(case, "auto", window_mask=False)(*tensors)], [expected], 1e-10)


@pytest.mark.parametrize("border", ["zero", "mask"])
@pytest.mark.parametrize("device", DEVICES)
def test_xla_programs_for_all_devices_match_reference(device, border):
  case = Case((2, 20, 24, 2, 4), (7, 7), border=border)
  tensors = inputs(case)
  expected = output_and_gradients(attention(case, "reference"), tensors)
  with use_target_device(device):
    compiled = tf.function(
      lambda *tensors: output_and_gradients(attention(case, "blocked"), tensors),
      jit_compile=True,
      autograph=False,
    )
    assert_close(compiled(*tensors), expected, 1e-10)


def test_without_window_mask_unknown_shapes_match_static_shapes():
  case = Case((1, 7, 10, 1, 4), (3, 5))
  *tensors, _ = inputs(case)
  attend = attention(case, "blocked", window_mask=False)
  maps = tf.TensorSpec([None, None, None, 1, 4], tf.float64)
  tables = [tf.TensorSpec([3, 2], tf.float64), tf.TensorSpec([5, 2], tf.float64)]
  unknown = tf.function(attend, input_signature=[maps] * 3 + tables)
  assert_close([unknown(*tensors)], [attend(*tensors)], 1e-12)


def test_padding_does_not_affect_results():
  """A 9 x 17 image, padded to full blocks, gives the same results as the corner of a larger one."""
  case = Case((1, 9, 17, 1, 4), (3, 3), border="mask")
  tensors = inputs(case)
  geometry = window_geometry(**case.arguments)
  padded = [tf.pad(t, [[0, 0], [0, 3], [0, 7], [0, 0], [0, 0]]) for t in tensors[:3]]
  alone = blocked.local_attention(*tensors[:3], None, None, geometry, 1.0, block=(4, 8))
  below = blocked.local_attention(*padded, None, None, geometry, 1.0, block=(4, 8))
  np.testing.assert_allclose(below[:, :8, :16], alone[:, :8, :16], rtol=1e-10)


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("use_tables", [False, True])
def test_chunks_do_not_change_results(monkeypatch, use_tables, jit):
  case = Case((3, 17, 24, 2, 4), (3, 3))
  *sources, upstream = inputs(case)
  tensors = [*(sources if use_tables else sources[:3]), upstream]
  expected = output_and_gradients(attention(case, "blocked"), tensors)
  monkeypatch.setattr(chunked_map, "_CPU_LOGITS", 10_000)
  monkeypatch.setattr(chunked_map, "_ACCELERATOR_LOGITS", 10_000)
  compute = tf.function(
    lambda tensors: output_and_gradients(attention(case, "blocked"), tensors), jit_compile=jit
  )
  operations = compute.get_concrete_function(tensors).graph.get_operations()
  assert sum("While" in operation.type for operation in operations) == 2
  assert_close(compute(tensors), expected, 1e-12)


@pytest.mark.parametrize(
  "blocks, logits, chunks",
  [(64, 1, 1), (64, 2**15, 1), (64, 2**17, 4), (66, 2**17, 6), (67, 2**17, 1), (6, 2**30, 6)],
)
def test_chunk_count(monkeypatch, blocks, logits, chunks):
  monkeypatch.setattr(chunked_map, "_ACCELERATOR_LOGITS", chunked_map._CPU_LOGITS)
  assert chunked_map.chunk_count(blocks, logits) == chunks


def test_residuals_do_not_scale_with_the_window():
  case = Case((2, 28, 28, 2, 4), (7, 7))
  maps = tf.TensorSpec(case.shape)
  tables = [tf.TensorSpec([7, 2])] * 2

  def largest_residual(implementation):
    concrete = tf.function(attention(case, implementation)).get_concrete_function(
      *[maps] * 3, *tables
    )
    forward, _ = concrete._delayed_rewrite_functions.forward_backward()
    return max(math.prod(t.shape) for t in forward.function_type.flat_outputs)

  assert largest_residual("blocked") <= 1.2 * math.prod(case.shape)
  assert largest_residual("reference") >= 49 * math.prod(case.shape)


def test_largest_xla_buffer_is_smaller_than_the_reference():
  case = Case((4, 56, 56, 2, 8), (7, 7))
  tensors = inputs(case, tf.float32)

  def largest_buffer(implementation):
    @tf.function(jit_compile=True)
    def step(tensors):
      return output_and_gradients(attention(case, implementation), tensors)

    text = step.experimental_get_compiler_ir(tensors)(stage="optimized_hlo")
    shapes = re.findall(r" = f32\[([\d,]+)\]", text)
    return max(math.prod(int(size) for size in shape.split(",")) for shape in shapes)

  assert 5 * largest_buffer("blocked") <= largest_buffer("reference")


@pytest.mark.parametrize(
  "case",
  [
    Case((1, 9, 9, 2, 4), (7, 7)),
    Case((1, 19, 21, 2, 4), (5, 3), (2, 1), "mask"),
    Case((1, 56, 56, 8, 4), (7, 7)),  # large enough for chunks
  ],
  ids=["single_block", "dilated", "chunks"],
)
def test_converts_to_builtin_litert_operations(case):
  interpreter = pytest.importorskip("ai_edge_litert.interpreter")
  query, key, value, rows, columns, _ = inputs(case, tf.float32)
  attend = tf.function(lambda q, k, v: attention(case, "blocked")(q, k, v, rows, columns))
  concrete = attend.get_concrete_function(*[tf.TensorSpec(case.shape)] * 3)
  converter = tf.lite.TFLiteConverter.from_concrete_functions([concrete])
  converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
  runner = interpreter.Interpreter(model_content=converter.convert())
  runner.allocate_tensors()
  for detail, tensor in zip(runner.get_input_details(), (query, key, value), strict=True):
    runner.set_tensor(detail["index"], tensor)
  runner.invoke()
  (output,) = runner.get_output_details()
  assert_close([runner.get_tensor(output["index"])], [attend(query, key, value)], 1e-5)
  ends = [detail["index"] for detail in (*runner.get_input_details(), output)]
  inner = [d["shape"] for d in runner.get_tensor_details() if d["index"] not in ends]
  assert max(len(shape) for shape in inner) <= 4
