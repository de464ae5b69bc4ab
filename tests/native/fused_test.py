"""Properties of `fused`: threads, instruction sets, random shapes, SavedModels, strategies."""

import json
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
from sasa_tf.ops import dispatch
from sasa_tf.ops.checks import window_geometry
from sasa_tf.ops.compiled import fused
from tests.ops.cases import (
  TOLERANCE,
  Case,
  assert_close,
  attention,
  inputs,
  output_and_gradients,
)

pytestmark = pytest.mark.skipif(
  "fused" not in ops.available_implementations(), reason="the compiled kernels have not been built"
)

CASE = Case((2, 17, 19, 3, 8), (7, 5), border="mask")


@st.composite
def problems(draw):
  """Draws a case, its dtype, and the arguments that are None: "key", "tables" or ""."""
  size = st.integers(1, 9) | st.integers(10, 24)
  kernel, rate = st.sampled_from([1, 3, 5, 7, 9, 11]), st.sampled_from([1, 1, 2, 3])
  absent = draw(st.sampled_from(["", "", "key", "tables"]))
  depth = draw(st.integers(1, 12) | st.sampled_from([16, 20, 32, 64, 128]))
  case = Case(
    (draw(st.integers(1, 2)), draw(size), draw(size), draw(st.integers(1, 3)), depth),
    (draw(kernel), draw(kernel)),
    (draw(rate), draw(rate)),
    draw(st.sampled_from(["zero", "mask"])),
  )
  dtype = draw(st.sampled_from([tf.float32, tf.float32, tf.bfloat16, tf.float16]))
  return case, dtype, "tables" if depth % 2 else absent


def _assert_matches_the_reference(problem):
  case, dtype, absent = problem
  query, key, value, *tables, upstream = inputs(case, dtype)
  scale = case.shape[4] ** -0.5
  tables = [] if absent == "tables" else [tf.cast(t, tf.float32) for t in tables]

  def compute(implementation, tensors):
    attend = attention(case, implementation, scale=scale)
    if absent == "key":
      return output_and_gradients(lambda q, *rest: attend(q, None, *rest), tensors)
    return output_and_gradients(attend, tensors)

  tensors = [query, *([] if absent == "key" else [key]), value, *tables, upstream]
  actual = compute("fused", tensors)
  expected = compute("reference", [tf.cast(t, tf.float64) for t in tensors])
  # Both tables are compared as one: with one row, the gradient of its table is only rounding error.
  maps = len(tensors) - len(tables)
  actual, expected = (
    [*results[:maps], *([tf.concat(results[maps:], axis=0)] if tables else [])]
    for results in (actual, expected)
  )
  assert_close(actual, expected, TOLERANCE[dtype])


@hypothesis.settings(max_examples=50, deadline=None, derandomize=True)
@hypothesis.given(problems())
def test_random_problems(problem):
  _assert_matches_the_reference(problem)


@pytest.mark.slow
@hypothesis.settings(max_examples=1000, deadline=None)
@hypothesis.given(problems())
def test_many_random_problems(problem):
  _assert_matches_the_reference(problem)


# Prints the bytes of output and gradients, computed in the process and in two replicas of it.
PROGRAM = """
import hashlib, json, sys
import tensorflow as tf
tf.config.threading.set_intra_op_parallelism_threads(int(sys.argv[1]))
cpus = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(cpus[0], [tf.config.LogicalDeviceConfiguration()] * 2)
from tests.native import fused_test
from tests.ops.cases import attention, inputs, output_and_gradients
tensors = inputs(fused_test.CASE, tf.float32)
compute = lambda: output_and_gradients(attention(fused_test.CASE, "fused"), tensors)
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
replicas = [strategy.experimental_local_results(t)
            for t in tf.function(lambda: strategy.run(tf.function(compute, jit_compile=True)))()]
results = [compute(), *zip(*replicas)]
print(json.dumps([fused_test.digest(r) for r in results]))
"""


def digest(tensors):
  """Returns a hash of the tensors' bytes."""
  return hash(b"".join(t.numpy().tobytes() for t in tensors))


def _in_another_process(threads, **environment):
  output = subprocess.check_output(
    [sys.executable, "-c", PROGRAM, str(threads)],
    env={**os.environ, "PYTHONHASHSEED": "0", **environment},
    text=True,
  )
  return json.loads(output.splitlines()[-1])


def test_results_do_not_depend_on_threads_or_replicas():
  one, three = _in_another_process(1), _in_another_process(3)
  assert len(one) == 3
  assert set(one) == set(three) and len(set(one)) == 1


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["plain", "avx2", "avx512"])
def test_every_instruction_set(variant):
  """Those that this CPU lacks fall back to a smaller one."""
  program = "import pytest; raise SystemExit(pytest.main(['-q', 'tests/native/fused_test.py', "
  program += "'-k', 'test_random_problems']))"
  environment = {**os.environ, "SASA_TF_NATIVE_CPU": variant}
  subprocess.run([sys.executable, "-c", program], env=environment, check=True)


def test_one_function_serves_all_sizes():
  tensors = [
    inputs(Case((b, h, w, 2, 4), (5, 5)), tf.float32) for b, h, w in ((1, 9, 7), (3, 4, 11))
  ]
  maps, table = tf.TensorSpec([None, None, None, 2, 4]), tf.TensorSpec([5, 2])
  compute = tf.function(
    lambda *t: output_and_gradients(attention(Case((0, 0, 0, 2, 4), (5, 5)), "fused"), t),
    input_signature=[maps, maps, maps, table, table, maps],
    jit_compile=True,
  )
  for few in tensors:
    expected = output_and_gradients(attention(Case((0, 0, 0, 2, 4), (5, 5)), "reference"), few)
    assert_close(compute(*few), expected, TOLERANCE[tf.float32])
  assert compute.experimental_get_tracing_count() == 1


def test_jacobian_matches_reference():
  case = Case((1, 3, 4, 1, 2), (3, 3))
  *tensors, _ = inputs(case, tf.float32)

  def jacobian(name):
    with tf.GradientTape(persistent=True) as tape:
      tape.watch(tensors)
      output = attention(case, name)(*tensors)
    return tape.jacobian(output, tensors)

  assert_close(jacobian("fused"), jacobian("reference"), 1e-5)


def test_xla_program_has_one_call_forward_and_one_backward():
  tensors = inputs(CASE, tf.float32)
  compute = tf.function(
    lambda t: output_and_gradients(attention(CASE, "fused"), t), jit_compile=True
  )
  text = compute.experimental_get_compiler_ir(tensors)(stage="optimized_hlo")
  assert text.count("custom_call_target=") == 2


def test_gradients_of_a_loaded_saved_model(tmp_path):
  class Module(tf.Module):
    @tf.function(input_signature=[tf.TensorSpec([None, None, None, 2, 4])])
    def attend(self, x):
      return ops.local_attention_2d(x, x, x, kernel_size=3, implementation="fused")

  tf.saved_model.save(Module(), str(tmp_path))
  assert b"XlaCallModule" in (tmp_path / "saved_model.pb").read_bytes()
  loaded, x = (
    tf.saved_model.load(str(tmp_path)),
    inputs(Case((2, 5, 6, 2, 4), (3, 3)), tf.float32)[0],
  )

  def gradient(attend):
    with tf.GradientTape() as tape:
      tape.watch(x)
      loss = tf.reduce_sum(attend(x) ** 2)
    return tape.gradient(loss, x)

  assert_close([gradient(loaded.attend)], [gradient(Module().attend)], 1e-6)


def test_exported_models_use_stock_operations(tmp_path):
  class Module(tf.Module):
    @tf.function(input_signature=[tf.TensorSpec([None, 16, 16, 2, 8])])
    def attend(self, x):
      return ops.local_attention_2d(x, x, x)

  tf.saved_model.save(Module(), str(tmp_path / "auto"))
  assert b"XlaCallModule" not in (tmp_path / "auto" / "saved_model.pb").read_bytes()
  with ops.use_implementation("fused"):
    tf.saved_model.save(Module(), str(tmp_path / "fused"))
  assert b"XlaCallModule" in (tmp_path / "fused" / "saved_model.pb").read_bytes()
  traced = Module().attend.get_concrete_function()  # for use here
  assert any(node.op == "XlaCallModule" for node in traced.graph.as_graph_def().node)


@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    ({"dtype": tf.float64}, "float32, bfloat16, float16, not float64"),
    ({"kernel_size": 13}, r"windows of up to 11 rows and columns, not \(13, 13\)"),
    ({"window_mask": False}, "window_mask=False needs an implementation that works in blocks"),
    ({"width": 132}, "heads of width up to 128, not 132"),
  ],
)
def test_unsupported_arguments_raise(arguments, message):
  arguments = dict(arguments)
  x = tf.zeros([2, 16, 16, 1, arguments.pop("width", 8)], arguments.pop("dtype", tf.float32))
  with pytest.raises(ValueError, match=f"implementation='fused' cannot compute this: .*{message}"):
    ops.local_attention_2d(x, x, x, implementation="fused", **arguments)
  geometry = window_geometry(arguments.get("kernel_size", 7))
  request = dispatch.AttentionRequest(x, geometry, arguments.get("window_mask", True))
  assert dispatch.choose(request)[0] != "fused"


@pytest.mark.parametrize(
  ("device", "why"), [("GPU", "built without nvcc"), ("TPU", "there are no compiled kernels for a")]
)
def test_is_not_selected_without_kernels_for_the_device(monkeypatch, device, why):
  monkeypatch.setattr("sasa_tf.ops.compiled.fused.target_device", lambda: device)
  cpu_only = library.Library(("CPU",), "built without nvcc")
  monkeypatch.setattr("sasa_tf.native.library.load", lambda: cpu_only)
  request = dispatch.AttentionRequest(tf.zeros([2, 16, 16, 8, 8]), window_geometry(7), True)
  name, reason = dispatch.choose(request)
  assert name == "blocked"
  assert f"and not 'fused': {why}" in reason


def test_nan_propagates():
  query = np.ones([1, 9, 9, 1, 4], np.float32)
  query[0, 4, 4] = np.nan
  output = attention(Case(query.shape, (3, 3)), "fused")(query, np.ones_like(query), query)
  assert np.isnan(output[0, 3:6, 3:6]).all()
  assert not np.isnan(output[0, :3]).any()


def _pooled(*tensors):
  """Attention by a program that was traced for GPUs, whose kernels pool the output."""
  with ops.use_target_device("GPU"):
    return fused.local_attention_packed(*tensors, window_geometry(7), 1.0, pool_size=2)


def _pooling_inputs(dtype):
  generator = tf.random.Generator.from_seed(1)
  projected = tf.cast(generator.normal([2, 6, 8, 3, 2, 16]), dtype)
  return [projected, *[generator.normal([7, 8]) for _ in range(2)]]


def _custom_call_results(compute, *arguments):
  """Returns the shapes of the results of a function's only custom call."""
  operations = compute.get_concrete_function(*arguments).graph.get_operations()
  (call,) = [op for op in operations if op.type == "XlaCallModule"]
  return [tuple(output.shape) for output in call.outputs]


def test_pooling_kernels_write_no_residuals_without_a_tape():
  tensors = _pooling_inputs(tf.bfloat16)
  inference = tf.function(_pooled)
  assert _custom_call_results(inference, *tensors) == [(0,), (0,), (2, 3, 4, 2, 16)]

  @tf.function
  def recorded(*tensors):
    with tf.GradientTape() as tape:
      tape.watch(tensors)
      return _pooled(*tensors)

  results = _custom_call_results(recorded, *tensors)
  assert results == [(2, 6, 8, 2, 16), (2, 6, 8, 2), (2, 3, 4, 2, 16)]
  assert_close([inference(*tensors)], [recorded(*tensors)], 0)


def test_gradient_of_a_pooling_function_that_was_traced_without_a_tape():
  tensors = _pooling_inputs(tf.bfloat16)

  def gradients(compute):
    with tf.GradientTape() as tape:
      tape.watch(tensors)
      loss = tf.reduce_sum(tf.cast(compute(*tensors), tf.float32) ** 2)
    return tape.gradient(loss, tensors)

  compute = tf.function(_pooled)
  compute(*tensors)
  found = gradients(compute)
  assert compute.experimental_get_tracing_count() == 1
  assert_close(found, gradients(_pooled), 0)


@pytest.mark.parametrize("mode", ["eager", "graph", "jit"])
@pytest.mark.parametrize("dtype", [tf.bfloat16, tf.float16], ids=lambda dtype: dtype.name)
def test_pooling_program_for_gpus_runs_on_cpus(dtype, mode):
  """The CPU kernels pool too, because a program traced for GPUs may run on a CPU."""
  tensors = _pooling_inputs(dtype)
  upstream = tf.cast(tf.random.Generator.from_seed(2).normal([2, 3, 4, 2, 16]), dtype)

  def results(attend, *arguments):
    *tensors, upstream = arguments
    with tf.GradientTape() as tape:
      tape.watch(tensors)
      output = attend(*tensors)
    return [output, *tape.gradient(output, tensors, upstream)]

  def reference(*tensors):
    return ops.local_attention_2d_qkv_packed(*tensors, pool_size=2, implementation="reference")

  run = results if mode == "eager" else tf.function(results, jit_compile=mode == "jit")
  found = run(_pooled, *tensors, upstream)
  exact = [tf.cast(x, tf.float64) for x in (*tensors, upstream)]
  assert_close(found, results(reference, *exact), TOLERANCE[dtype])
