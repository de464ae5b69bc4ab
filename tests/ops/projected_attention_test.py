"""The kernels with the projections inside: where they are used, and their gradients.

The kernels need a GPU; here other kernels replace them.
"""

import numpy as np
import pytest
import tensorflow as tf

from sasa_tf import ops
from sasa_tf.native import library, limits
from sasa_tf.ops.compiled import fused, fused_projection, xla_custom_call
from sasa_tf.ops.compiled.local_attention_stablehlo import LocalAttentionCall
from sasa_tf.ops.window import WindowGeometry
from tests.ops.programs import products

pytestmark = pytest.mark.skipif(
  "fused" not in ops.available_implementations(), reason="the compiled kernels have not been built"
)

SIZE, CHANNELS, HEADS, DEPTH = (1, 17, 16), 64, 2, 8
FILTERS = HEADS * DEPTH
WIDE = f"{17 * 16},{3 * FILTERS}"  # the product that the kernel has inside


@pytest.fixture
def calls(monkeypatch):
  """Replaces the kernels, traces for a GPU, and yields the calls.

  For the forward kernel whether it saves the LSE, for the backward kernel "backward".
  """
  found = []
  call_kernel = fused.call_kernel

  def replaced(module, platforms, arguments, specs):
    if "projected" not in module:
      return call_kernel(module, platforms, arguments, specs)
    assert platforms == ("CUDA",)
    pixels, kernel, *tables = arguments[:4]
    # Products of another shape than the one that the tests count.
    parts = [pixels @ tf.reshape(kernel[:, part], [CHANNELS, FILTERS]) for part in range(3)]
    qkv = tf.reshape(tf.concat(parts, -1), [*SIZE, 3, HEADS, DEPTH])
    window = WindowGeometry((7, 7), (1, 1), "mask")
    has_relative = tables[0].shape[0] > 0
    call = LocalAttentionCall(
      "bf16", HEADS, DEPTH, window, 0.5, True, has_relative, True, platforms=("CPU",)
    )
    if "projected_backward" in module:
      found.append("backward")
      empty = tf.TensorSpec([0], tf.bfloat16)
      d_qkv, _, _, *others = call_kernel(
        call.backward,
        ("CPU",),
        [*[qkv] * 3, *tables, *arguments[4:]],
        [specs[0], empty, empty, *specs[1:]],
      )
      return [d_qkv, *others]
    lse = tf.TensorSpec([*SIZE, HEADS])
    outputs = [specs[0], lse, tf.TensorSpec([0], tf.bfloat16)]
    output, lse, _ = call_kernel(call.forward, ("CPU",), [*[qkv] * 3, *tables], outputs)
    found.append(specs[1].shape.rank > 1)
    return output, lse if found[-1] else tf.zeros([0])

  monkeypatch.setattr(fused, "call_kernel", replaced)
  monkeypatch.setattr(library, "gpu_capability", lambda: (9, 0))
  monkeypatch.setitem(xla_custom_call.PLATFORMS, "GPU", "CPU")  # the other kernels
  with ops.use_target_device("GPU"):
    yield found


@pytest.fixture
def projects_backward(calls, monkeypatch):
  """As `calls`, with the backward kernel for images of any size."""
  monkeypatch.setattr(fused_projection, "has_hopper_kernels", lambda: True)
  monkeypatch.setattr(limits, "projected_backward_is_faster", lambda *a: True)
  return calls


def arguments(dtype=tf.bfloat16):
  generator = np.random.default_rng(0)

  def normal(*shape, scale=1.0):
    return tf.constant(generator.normal(size=shape, scale=scale).astype(np.float32))

  inputs = tf.cast(normal(*SIZE, CHANNELS), dtype)
  kernels = [tf.cast(normal(CHANNELS, FILTERS, scale=0.125), dtype) for _ in range(3)]
  return inputs, kernels, [normal(7, DEPTH // 2) for _ in range(2)]


def attend(inputs, kernels, tables, **changes):
  window = {"border": "mask", "scale": 0.5, "implementation": "fused", "num_heads": HEADS}
  return ops.local_self_attention_2d(inputs, kernels, *tables, **window | changes)


def with_gradients(inputs, kernels, tables, **changes):
  sources = [inputs, *kernels, *tables]
  with tf.GradientTape() as tape:
    tape.watch(sources)
    output = attend(inputs, kernels, tables, **changes)
  return [output, *tape.gradient(output, sources, tf.ones_like(output))]


def assert_equal(found, expected):
  for one, other in zip(found, expected, strict=True):
    np.testing.assert_array_equal(tf.cast(one, tf.float32), tf.cast(other, tf.float32))


def test_inference_has_no_product_and_no_lse(calls):
  inputs, kernels, tables = arguments()
  run = tf.function(attend, jit_compile=True)
  found = run(inputs, kernels, tables)
  assert calls == [False]
  assert WIDE not in products(attend, inputs, kernels, tables)
  with ops.use_target_device("CPU"):
    assert_equal([found], [tf.function(attend, jit_compile=True)(inputs, kernels, tables)])
    assert WIDE in products(attend, inputs, kernels, tables)


def test_training_has_only_the_product_of_the_backward_pass(calls):
  tensors = arguments()
  found = tf.function(with_gradients, jit_compile=True)(*tensors)
  assert calls == [True]
  assert products(with_gradients, *tensors).count(WIDE) == 1
  with ops.use_target_device("CPU"):
    assert_equal(found, tf.function(with_gradients, jit_compile=True)(*tensors))


@pytest.mark.parametrize("has_tables", [True, False])
def test_training_has_no_product_with_the_backward_kernel(projects_backward, has_tables):
  inputs, kernels, tables = arguments()
  tensors = (inputs, kernels, tables)
  if has_tables:
    run = with_gradients
  else:

    def run(inputs, kernels, tables):
      with tf.GradientTape() as tape:
        tape.watch([inputs, *kernels])
        output = attend(inputs, kernels, [None, None])
      return [output, *tape.gradient(output, [inputs, *kernels])]

  found = tf.function(run, jit_compile=True)(*tensors)
  assert projects_backward == [True, "backward"]
  assert WIDE not in products(run, *tensors)
  with ops.use_target_device("CPU"):
    assert_equal(found, tf.function(run, jit_compile=True)(*tensors))


def test_backward_kernel_with_the_kernel_of_the_projections_gradients(
  projects_backward, monkeypatch
):
  tensors = arguments()
  monkeypatch.setattr(fused_projection, "is_faster", lambda projection: True)
  monkeypatch.setattr(fused_projection, "_gradients", fused_projection._stock_gradients)
  found = tf.function(with_gradients, jit_compile=True)(*tensors)
  assert projects_backward == [True, "backward"]
  with ops.use_target_device("CPU"):
    assert_equal(found, tf.function(with_gradients, jit_compile=True)(*tensors))


@pytest.mark.parametrize("case", ["GPU", "slower", "kernel_size"])
def test_other_gradients_have_the_product(projects_backward, monkeypatch, case):
  inputs, kernels, tables = arguments()
  changes = {}
  if case == "GPU":
    monkeypatch.setattr(fused_projection, "has_hopper_kernels", lambda: False)
  if case == "slower":
    monkeypatch.setattr(limits, "projected_backward_is_faster", lambda *a: False)
  if case == "kernel_size":
    changes["kernel_size"] = 5
    tables = [table[:5] for table in tables]
  run = tf.function(with_gradients, jit_compile=True)
  run.get_concrete_function(inputs, kernels, tables, **changes)
  assert projects_backward == [True]


def test_training_with_the_kernel_of_the_projections_gradients(calls, monkeypatch):
  tensors = arguments()
  gradients = []
  monkeypatch.setattr(fused_projection, "is_faster", lambda projection: True)
  monkeypatch.setattr(
    fused_projection,
    "_gradients",
    lambda *tensors: gradients.append(1) or fused_projection._stock_gradients(*tensors),
  )
  found = tf.function(with_gradients, jit_compile=True)(*tensors)
  assert calls == [True]
  assert gradients == [1]
  with ops.use_target_device("CPU"):
    assert_equal(found, tf.function(with_gradients, jit_compile=True)(*tensors))


@pytest.mark.parametrize("has_backward", [False, True])
def test_gradient_from_outside_of_a_function(calls, request, has_backward):
  if has_backward:
    request.getfixturevalue("projects_backward")
  inputs, kernels, tables = arguments()
  run = tf.function(attend, jit_compile=True)

  def gradient():
    with tf.GradientTape() as tape:
      tape.watch(inputs)
      output = run(inputs, kernels, tables)
    return [output, tape.gradient(output, inputs)]

  found = gradient()
  assert calls
  assert ("backward" in calls) == has_backward
  with ops.use_target_device("CPU"):
    run = tf.function(attend, jit_compile=True)
    assert_equal(found, gradient())


@pytest.mark.parametrize("kernel_size", [3, 5])
def test_smaller_windows_have_no_product(calls, kernel_size):
  inputs, kernels, _ = arguments()
  run = tf.function(attend, jit_compile=True)
  run.get_concrete_function(inputs, kernels, [None, None], kernel_size=kernel_size)
  assert calls == [False]


@pytest.mark.parametrize(
  "changes",
  [
    {"biases": [tf.ones([FILTERS], tf.bfloat16), None, None]},
    {"dilation_rate": 2},
    {"num_heads": 1},
    {"kernel_size": 9},
    {"scale": 0.001},
    {"implementation": "blocked"},
  ],
  ids=lambda changes: next(iter(changes)),
)
def test_others_have_the_product(calls, changes):
  inputs, kernels, tables = arguments()
  if changes.keys() & {"num_heads", "kernel_size"}:
    tables = [None, None]
  tf.function(attend, jit_compile=True).get_concrete_function(inputs, kernels, tables, **changes)
  assert not calls


@pytest.mark.parametrize("case", ["eager", "graph", "float32", "no key", "32 channels", "wide"])
def test_other_contexts_and_inputs_have_the_product(calls, case):
  inputs, kernels, tables = arguments(tf.float32 if case == "float32" else tf.bfloat16)
  if case == "no key":
    kernels[1] = None
  if case == "32 channels":
    inputs, kernels = inputs[..., :32], [kernel[:32] for kernel in kernels]
  if case == "wide":
    inputs = tf.tile(inputs, [1, 1, 4, 1])
  if case == "eager":
    attend(inputs, kernels, tables)
  else:
    run = tf.function(attend, jit_compile=case != "graph")
    run.get_concrete_function(inputs, kernels, tables)
  assert not calls


def test_older_gpus_have_the_product(calls, monkeypatch):
  monkeypatch.setattr(library, "gpu_capability", lambda: (8, 0))
  tf.function(attend, jit_compile=True).get_concrete_function(*arguments())
  assert not calls


def test_without_tables(calls):
  inputs, kernels, _ = arguments()
  found = tf.function(attend, jit_compile=True)(inputs, kernels, [None, None])
  assert calls == [False]
  with ops.use_target_device("CPU"):
    run = tf.function(attend, jit_compile=True)
    assert_equal([found], [run(inputs, kernels, [None, None])])
