"""The kernel of the projections' gradients: where it is used, and its derivatives.

The kernel needs a GPU; here stock operations replace it.
"""

import dataclasses
import functools

import numpy as np
import pytest
import tensorflow as tf

from sasa_tf import ops
from sasa_tf.native import library
from sasa_tf.ops.compiled import fused, fused_projection, xla_custom_call
from sasa_tf.ops.qkv_packing import Projection
from tests.ops.programs import products

pytestmark = pytest.mark.skipif(
  "fused" not in ops.available_implementations(), reason="the compiled kernels have not been built"
)

# Images for which the backward pass recomputes the projections, and does not.
LARGE, SMALL = (1, 17, 16), (2, 5, 7)
CHANNELS, HEADS = 64, 8


@pytest.fixture
def calls(monkeypatch):
  """Replaces the kernel, traces for a GPU, and yields the shape of the inputs of each call."""
  found = []

  def replaced(module, platforms, arguments, specs):
    assert platforms == ("CUDA",)
    assert "sasa_tf_projection_backward" in module
    found.append(tuple(arguments[0].shape))
    inputs, kernel, upstream = (tf.cast(x, tf.float32) for x in arguments)
    # Sums, not products, because the tests count the products.
    d_inputs = tf.reduce_sum(upstream[..., tf.newaxis, :] * kernel, -1)
    d_kernel = tf.reduce_sum(inputs[..., tf.newaxis] * upstream[..., tf.newaxis, :], [0, 1, 2])
    gradients = [
      tf.cast(x, spec.dtype) for x, spec in zip((d_inputs, d_kernel), specs, strict=False)
    ]
    return [*gradients, tf.zeros([0])]

  loaded = dataclasses.replace(library.load(), architectures=(80, 90))
  monkeypatch.setattr(library, "load", lambda: loaded)
  monkeypatch.setattr(fused_projection, "call_kernel", replaced)
  monkeypatch.setattr(fused_projection, "_MIN_ELEMENTS", 1)
  monkeypatch.setattr(fused, "_projects", lambda *arguments: False)  # that kernel needs a GPU too
  monkeypatch.setattr(library, "gpu_capability", lambda: (9, 0))
  monkeypatch.setitem(xla_custom_call.PLATFORMS, "GPU", "CPU")  # the attention's kernels
  with ops.use_target_device("GPU"):
    yield found


def arguments(size=LARGE, channels=CHANNELS, dtype=tf.bfloat16):
  generator = np.random.default_rng(0)

  def normal(*shape, scale=1.0):
    return tf.cast(tf.constant(generator.normal(size=shape, scale=scale)), dtype)

  return normal(*size, channels), [normal(channels, CHANNELS, scale=0.125) for _ in range(3)]


def attend(inputs, kernels, **changes):
  options = {"scale": 0.5, "implementation": "fused", "num_heads": HEADS}
  return ops.local_self_attention_2d(inputs, kernels, **options | changes)


def gradients(inputs, kernels, **changes):
  sources = [inputs, *[kernel for kernel in kernels if kernel is not None]]
  with tf.GradientTape() as tape:
    tape.watch(sources)
    output = attend(inputs, kernels, **changes)
  return tape.gradient(output, sources, tf.cast(tf.range(1, 9), output.dtype) * output)


def compiled(function, *inputs, **changes):
  run = tf.function(lambda *inputs: function(*inputs, **changes), jit_compile=True, autograph=False)
  return run(*inputs)


def assert_close(found, expected):
  for one, other in zip(found, expected, strict=True):
    one, other = tf.cast(one, tf.float32), tf.cast(other, tf.float32)
    np.testing.assert_allclose(one, other, rtol=0, atol=1e-2 * np.abs(other).max())


@pytest.mark.parametrize("size", [LARGE, SMALL], ids=["recomputed", "saved"])
@pytest.mark.parametrize("pool_size", [1, 2])
def test_gradients_are_those_of_the_products(calls, size, pool_size):
  inputs, kernels = arguments(size)
  found = compiled(gradients, inputs, kernels, pool_size=pool_size)
  assert calls == [(*size, CHANNELS)]
  with ops.use_target_device("CPU"):
    assert_close(found, compiled(gradients, inputs, kernels, pool_size=pool_size))
  assert len(calls) == 1


def test_program_has_no_product_of_the_gradients(calls):
  inputs, kernels = arguments()
  pixels = np.prod(LARGE)
  wide, d_inputs, d_kernel = f"{pixels},{3 * CHANNELS}", f"{pixels},{CHANNELS}", "64,192"
  found = products(gradients, inputs, kernels)
  assert calls
  assert wide in found and not {d_inputs, d_kernel} & set(found)
  with ops.use_target_device("CPU"):
    assert {wide, d_inputs, d_kernel} <= set(products(gradients, inputs, kernels))


def project(inputs, kernel):
  qkv = tf.reshape(inputs @ kernel, [*SMALL, 3, HEADS, CHANNELS // HEADS])
  return fused_projection.with_gradients(qkv, Projection(inputs, kernel))


def stock_project(inputs, kernel):
  return tf.reshape(inputs @ kernel, [*SMALL, 3, HEADS, CHANNELS // HEADS])


def gradient(function, inputs, kernel):
  with tf.GradientTape() as tape:
    tape.watch([inputs, kernel])
    loss = tf.reduce_sum(tf.square(function(inputs, kernel)))
  return tape.gradient(loss, [inputs, kernel])


def second_gradient(function, inputs, kernel):
  with tf.GradientTape() as tape:
    tape.watch([inputs, kernel])
    loss = tf.add_n([tf.reduce_sum(tf.square(g)) for g in gradient(function, inputs, kernel)])
  return tape.gradient(loss, [inputs, kernel])


def tangent(function, inputs, kernel):
  sources = [inputs, kernel]
  with tf.autodiff.ForwardAccumulator(sources, [tf.sin(x) for x in sources]) as accumulator:
    output = function(inputs, kernel)
  return [accumulator.jvp(output)]


def tangent_of_gradient(function, inputs, kernel):
  with tf.autodiff.ForwardAccumulator(inputs, tf.sin(inputs)) as accumulator:
    found = gradient(function, inputs, kernel)
  return accumulator.jvp(found)


def tangent_of_upstream(function, inputs, kernel):
  with tf.GradientTape() as tape:
    tape.watch([inputs, kernel])
    output = function(inputs, kernel)
  upstream = tf.cos(output)
  with tf.autodiff.ForwardAccumulator(upstream, tf.sin(output)) as accumulator:
    found = tape.gradient(output, [inputs, kernel], upstream)
  return accumulator.jvp(found)


@pytest.mark.parametrize(
  ("derivative", "uses_kernel"),
  [
    (gradient, True),
    (second_gradient, True),
    (tangent, False),
    (tangent_of_gradient, False),
    (tangent_of_upstream, False),
  ],
)
def test_derivatives_of_the_projection(calls, derivative, uses_kernel):
  inputs, kernels = arguments(SMALL, dtype=tf.float32)
  kernel = tf.concat(kernels, -1)
  found = compiled(functools.partial(derivative, project), inputs, kernel)
  assert bool(calls) == uses_kernel
  assert_close(found, derivative(stock_project, inputs, kernel))


def test_gradient_from_outside_of_a_function(calls):
  inputs, kernels = arguments(SMALL)

  def outer_gradient():
    run = tf.function(attend, jit_compile=True, autograph=False)
    with tf.GradientTape() as tape:
      tape.watch([inputs, *kernels])
      output = run(inputs, kernels)
    return tape.gradient(output, [inputs, *kernels])

  found = outer_gradient()
  assert calls
  with ops.use_target_device("CPU"):
    assert_close(found, outer_gradient())


def test_unknown_batch(calls):
  inputs, kernels = arguments(SMALL)
  signature = [
    tf.TensorSpec([None, *SMALL[1:], CHANNELS], tf.bfloat16),
    [tf.TensorSpec.from_tensor(k) for k in kernels],
  ]
  run = tf.function(gradients, signature, jit_compile=True, autograph=False)
  found = run(inputs, kernels)
  assert calls == [(None, *SMALL[1:], CHANNELS)]
  with ops.use_target_device("CPU"):
    assert_close(found, compiled(gradients, inputs, kernels))


@pytest.mark.parametrize(
  "changes",
  [
    {"biases": [tf.ones([CHANNELS], tf.bfloat16), None, None]},
    {"implementation": "blocked"},
  ],
  ids=lambda changes: next(iter(changes)),
)
def test_others_have_the_products(calls, changes):
  compiled(gradients, *arguments(SMALL), **changes)
  assert not calls


@pytest.mark.parametrize(
  "case", ["eager", "graph", "float32", "no key", "32 channels", "few pixels"]
)
def test_other_contexts_and_inputs_have_the_products(calls, monkeypatch, case):
  inputs, kernels = arguments(
    SMALL,
    32 if case == "32 channels" else CHANNELS,
    tf.float32 if case == "float32" else tf.bfloat16,
  )
  relative = {}
  if case == "no key":
    kernels[1] = None
    relative = {"relative_rows": tf.ones([7, 4]), "relative_columns": tf.ones([7, 4])}
  if case == "few pixels":
    monkeypatch.setattr(fused_projection, "_MIN_ELEMENTS", inputs.shape.num_elements() + 1)
  if case == "eager":
    gradients(inputs, kernels)
  else:
    run = tf.function(
      lambda *inputs: gradients(*inputs, **relative), jit_compile=case != "graph", autograph=False
    )
    run.get_concrete_function(inputs, kernels)
  assert not calls


@pytest.mark.parametrize("capability", [(8, 0), (10, 0)])
def test_other_gpus_have_the_products(calls, monkeypatch, capability):
  monkeypatch.setattr(library, "gpu_capability", lambda: capability)
  compiled(gradients, *arguments(SMALL))
  assert not calls


def test_library_without_code_for_hopper(calls, monkeypatch):
  loaded = dataclasses.replace(library.load(), architectures=(80,))
  monkeypatch.setattr(library, "load", lambda: loaded)
  compiled(gradients, *arguments(SMALL))
  assert not calls
