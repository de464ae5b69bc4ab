"""NaN and infinity: a non-finite pixel shows at least where the windows that hold it say so.

`local_attention_2d` documents the rule.
"""

import functools

import numpy as np
import pytest
import tensorflow as tf

from sasa_tf import ops
from sasa_tf.ops.stem.absorbed_attention import block_attention_2d_absorbed
from tests.ops import oracle
from tests.ops.cases import Case, attention, inputs, output_and_gradients

IMPLEMENTATIONS = ops.available_implementations()
NAMES = ("output", "d_query", "d_key", "d_value", "d_rows", "d_columns")
CASE = Case((1, 14, 18, 2, 4), (3, 3))
PIXEL = (0, 6, 9, 1)  # image, row, column, head


def _tensors(case, argument, number, pixel=PIXEL, dtype=tf.float32):
  """Inputs of which the query (0), key (1), value (2) or upstream gradient (5) has one NaN."""
  tensors = inputs(case, dtype)
  array = tensors[argument].numpy()
  array[(*pixel, 1)] = number
  tensors[argument] = tf.constant(array)
  return tensors


def _nonfinite(tensor):
  return ~np.isfinite(tf.cast(tensor, tf.float32).numpy())


@functools.cache  # Only the numbers differ between tests, not the program.
def _function(case, implementation, mode):
  compute = lambda tensors: output_and_gradients(attention(case, implementation), tensors)  # noqa: E731
  if mode != "eager":
    compute = tf.function(compute, jit_compile=mode == "jit", autograph=False)
  return compute


def _run(case, implementation, tensors, mode="eager"):
  return _function(case, implementation, mode)(tensors)


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf], ids=str)
@pytest.mark.parametrize("argument", [0, 1, 2, 5], ids=["query", "key", "value", "upstream"])
@pytest.mark.parametrize("border", ["zero", "mask"])
def test_reference_matches_oracle(border, argument, number):
  case = Case((1, 5, 6, 1, 2), (3, 3), border=border)
  *tensors, _ = _tensors(case, argument, number, (0, 1, 4, 0), tf.float64)
  with np.errstate(all="ignore"):
    expected = oracle.local_attention(*[t.numpy() for t in tensors], **case.arguments)
  np.testing.assert_allclose(attention(case, "reference")(*tensors), expected, rtol=1e-9)


@pytest.mark.parametrize("table", [3, 4], ids=["rows", "columns"])
def test_infinite_positions_do_not_bring_masked_pixels_back(table):
  case = Case((1, 5, 6, 1, 2), (3, 3), border="mask")
  *tensors, _ = inputs(case, tf.float64)
  tensors[0] = tf.abs(tensors[0])  # the logits of these positions are plus infinity
  array = tensors[table].numpy()
  array[0] = np.inf
  tensors[table] = tf.constant(array)
  with np.errstate(all="ignore"):
    expected = oracle.local_attention(*[t.numpy() for t in tensors], **case.arguments)
  first = (0, 0) if table == 3 else (0, slice(None), 0)
  assert np.isfinite(expected[first]).all()
  np.testing.assert_allclose(attention(case, "reference")(*tensors), expected, rtol=1e-9)


@pytest.mark.parametrize("mode", ["eager", "jit"])
@pytest.mark.parametrize("number", [np.nan, np.inf], ids=str)
@pytest.mark.parametrize("argument", [0, 1, 2, 5], ids=["query", "key", "value", "upstream"])
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS[1:])
def test_nothing_is_hidden(implementation, argument, number, mode):
  """Output and gradients are non-finite wherever those of the reference are."""
  for border in ("zero", "mask"):
    case = Case(CASE.shape, (3, 3), border=border)
    tensors = _tensors(case, argument, number)
    expected = _run(case, "reference", tensors)
    for name, found, like in zip(
      NAMES, _run(case, implementation, tensors, mode), expected, strict=True
    ):
      hidden = _nonfinite(like) & ~_nonfinite(found)
      assert not hidden.any(), (name, border, np.argwhere(hidden)[:3])


@pytest.mark.parametrize("payload", [0x7FC00000, 0x7FC00001, 0x7F800001, 0xFFFFFFFF], ids=hex)
@pytest.mark.parametrize("argument", [0, 1, 2], ids=["query", "key", "value"])
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS[1:])
def test_all_bit_patterns_of_nan(implementation, argument, payload):
  number = np.array([payload], np.uint32).view(np.float32)[0]
  tensors = _tensors(CASE, argument, number)
  expected = _run(CASE, "reference", tensors)
  for found, like in zip(_run(CASE, implementation, tensors), expected, strict=True):
    assert not (_nonfinite(like) & ~_nonfinite(found)).any()


def _distance(nonfinite):
  """Returns the largest distance in rows or columns from PIXEL of an element of its head."""
  assert not nonfinite[:, :, :, 1 - PIXEL[3]].any()  # the other head
  places = np.argwhere(nonfinite)
  return np.abs(places[:, 1:3] - PIXEL[1:3]).max(initial=0)


@pytest.mark.parametrize("argument", [0, 1, 2], ids=["query", "key", "value"])
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_a_pixel_does_not_reach_far(implementation, argument):
  """Exactly the windows that hold it; in `blocked`, the blocks whose tile does."""
  output = _run(CASE, implementation, _tensors(CASE, argument, np.nan))[0]
  reach = 0 if argument == 0 else 1
  if implementation == "blocked" and argument:
    assert reach <= _distance(_nonfinite(output)) <= reach + 7  # blocks of 4 x 8
  else:
    assert _distance(_nonfinite(output)) == reach
    affected = (2 * reach + 1) ** 2
    assert _nonfinite(output).any(axis=-1).sum() == affected


def test_fused_gradients_stay_near_the_pixel():
  if "fused" not in IMPLEMENTATIONS:
    pytest.skip("the compiled kernels have not been built")
  for argument in (0, 1, 2):
    gradients = _run(CASE, "fused", _tensors(CASE, argument, np.nan))[1:4]
    for gradient in gradients:
      assert _distance(_nonfinite(gradient)) <= 2


def test_all_logits_minus_infinity():
  """The reference's softmax is NaN, and so are its gradients."""
  case = Case((1, 5, 6, 1, 2), (3, 3))
  query, key, value, rows, columns, upstream = inputs(case, tf.float32)
  key = tf.fill(key.shape, -np.inf)
  tensors = [tf.ones_like(query), key, value, rows, columns, upstream]
  expected = _run(Case(case.shape, (3, 3), border="mask"), "reference", tensors)
  inner = (slice(None), slice(1, -1), slice(1, -1))  # without masked neighbors
  assert _nonfinite(expected[0])[inner].all() and _nonfinite(expected[3])[inner].all()
  for implementation in IMPLEMENTATIONS[1:]:
    found = _run(Case(case.shape, (3, 3), border="mask"), implementation, tensors)
    for one, other in zip(found, expected, strict=True):
      assert not (_nonfinite(other) & ~_nonfinite(one)).any(), implementation


WITHOUT_KEYS = {  # shape, kernel size, dilation rate; full blocks, padding, small images
  "full_blocks": ((1, 16, 16, 2, 4), (3, 3), (1, 1)),
  "padding": ((2, 7, 18, 1, 4), (3, 5), (1, 1)),
  "dilated": ((1, 9, 13, 2, 4), (3, 3), (2, 3)),
  "kernel_1": ((1, 5, 6, 1, 2), (1, 1), (1, 1)),
}


def _without_keys(case, argument):
  """Inputs whose keys, or table of rows, are minus infinity in all windows of some queries."""
  query, key, value, rows, columns, upstream = inputs(case, tf.float32)
  query = tf.abs(query) + 0.1
  if argument == "rows":
    rows = tf.fill(rows.shape, -np.inf)
  else:
    array = key.numpy()
    array[0, :5, :7, 0] = -np.inf
    key = tf.constant(array)
  return [query, key, value, rows, columns, upstream]


@pytest.mark.parametrize("argument", ["rows", "key"])
@pytest.mark.parametrize("border", ["zero", "mask"])
@pytest.mark.parametrize("name", WITHOUT_KEYS)
def test_queries_without_a_key(name, border, argument):
  """All logits of a window are minus infinity, those of the rest of its tile are masked."""
  case = Case(*WITHOUT_KEYS[name], border)
  tensors = _without_keys(case, argument)
  expected = _run(case, "reference", tensors)
  assert _nonfinite(expected[0]).any()
  found = {f"{i}, eager": _run(case, i, tensors) for i in IMPLEMENTATIONS[1:]}
  if name == "padding":
    found["blocked, jit"] = _run(case, "blocked", tensors, "jit")
  with ops.tracing_for_export():
    found["export"] = [tf.function(attention(case, "blocked"), autograph=False)(*tensors[:-1])]
  for which, results in found.items():
    for like, result in zip(expected, results, strict=which != "export"):
      assert not (_nonfinite(like) & ~_nonfinite(result)).any(), which
  output = found["blocked, eager"][0]
  both = tf.math.is_finite(output) & tf.math.is_finite(expected[0])
  if argument == "key" and name == "full_blocks":
    assert tf.reduce_any(both)
  assert tf.reduce_max(tf.abs(tf.where(both, output - expected[0], 0.0))) < 1e-5


@pytest.mark.parametrize("implementation", ["auto", "blocked"], ids=["compiled", "stock"])
def test_stem(implementation):
  """A pixel touches its block of 4 x 4, and the gradients of all weights."""
  images = tf.random.stateless_normal([1, 8, 12, 3], [1, 2]).numpy()
  images[0, 5, 6, 1] = np.nan
  kernels = [tf.random.stateless_normal([3, 2, 4], [1, n]) for n in (3, 4)]
  values = tf.random.stateless_normal([16, 3, 2, 4], [1, 5])

  @tf.function(autograph=False)
  def compute(images, *weights):
    with tf.GradientTape() as tape:
      tape.watch(weights)
      output = block_attention_2d_absorbed(images, *weights)
    return [output, *tape.gradient(output, weights, tf.ones_like(output))]

  with ops.use_implementation(implementation):
    output, *gradients = compute(tf.constant(images), *kernels, values)
  expected = np.zeros([1, 8, 12], bool)
  expected[0, 4:, 4:8] = True
  np.testing.assert_array_equal(_nonfinite(output).all(axis=-1), expected)
  np.testing.assert_array_equal(_nonfinite(output).any(axis=-1), expected)
  for gradient in gradients:
    assert _nonfinite(gradient).any()
