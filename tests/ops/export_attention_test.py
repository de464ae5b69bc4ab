"""Attention as exported models compute it: equal to the reference, with logits of moderate size."""

import math

import numpy as np
import pytest
import tensorflow as tf

from sasa_tf import ops
from sasa_tf.ops.blocked import export_attention
from sasa_tf.ops.blocked.block_sizes import export_block_size
from sasa_tf.ops.bounded_masks import mask_logits
from sasa_tf.ops.checks import window_geometry
from sasa_tf.ops.xla_barriers import use_target_device
from tests.ops import oracle
from tests.ops.cases import CASES, FEW, TOLERANCE, Case, assert_close, attention, inputs

both_borders = pytest.mark.parametrize("border", ["zero", "mask"])


@pytest.fixture(
  params=[(True, 0), (False, 0), (False, 8), (True, 8)],
  ids=["quantizable", "float", "joined", "quantizable-joined"],
  autouse=True,
)
def quantizable(request):
  """Forms of masks and products; `_exported` and `_constants` trace the form of the test."""
  quantizable, product_columns = request.param
  with ops.tracing_for_export(quantizable=quantizable, product_columns=product_columns):
    yield quantizable


def _exported(function, tensors, unknown=False):
  """Traces a function for export and calls it, with images of unknown size if `unknown`."""
  specs = [
    tf.TensorSpec([None] * 3 + x.shape[3:] if unknown and x.shape.rank == 5 else x.shape, x.dtype)
    for x in tensors
  ]
  with ops.tracing_for_export():
    concrete = tf.function(function).get_concrete_function(*specs)
  return concrete(*tensors)


def _constants(function, *specs):
  """Returns the largest finite constant, in magnitude, of a function traced for export."""
  with ops.tracing_for_export():
    graph = tf.function(function).get_concrete_function(*specs).graph
  largest = 0.0
  for node in graph.as_graph_def().node:
    if node.op == "Const":
      value = tf.make_ndarray(node.attr["value"].tensor)
      if value.dtype.kind == "f" and value.size:
        largest = max(largest, float(np.abs(value).max()))
  return largest


@pytest.mark.parametrize(
  ("name", "unknown"), [*((name, False) for name in CASES), *((name, True) for name in FEW)]
)
def test_equals_reference(name, unknown):
  case = CASES[name]
  *tensors, _ = inputs(case)
  received = _exported(attention(case, "blocked", scale=0.7), tensors, unknown)
  assert_close([received], [attention(case, "reference", scale=0.7)(*tensors)], 1e-10)


@both_borders
@pytest.mark.parametrize("dtype", [tf.float32, tf.bfloat16], ids=lambda d: d.name)
def test_equals_reference_in_other_dtypes(dtype, border):
  case = Case((2, 9, 8, 2, 4), (3, 5), border=border)
  *tensors, _ = inputs(case, dtype)
  received = _exported(attention(case, "blocked"), tensors)
  expected = attention(case, "reference")(*tensors)
  assert_close([received], [expected], TOLERANCE[dtype])


@both_borders
@pytest.mark.parametrize("terms", ["content", "positions"])
def test_terms_alone(terms, border):
  case = Case((1, 9, 8, 2, 4), (3, 5), border=border)
  query, key, value, rows, columns, _ = inputs(case)
  if terms == "content":
    tensors = [query, key, value]
    received = _exported(attention(case, "blocked"), tensors)
    wanted = attention(case, "reference")(*tensors)
  else:
    tensors = [query, value, rows, columns]

    def positions_alone(implementation):
      attend = attention(case, implementation)
      return lambda q, v, r, c: attend(q, None, v, r, c)

    received = _exported(positions_alone("blocked"), tensors)
    wanted = positions_alone("reference")(*tensors)
  assert_close([received], [wanted], 1e-10)


@both_borders
def test_without_window_mask(border):
  case = Case((1, 7, 10, 1, 4), (3, 5), border=border)
  *tensors, _ = inputs(case)
  expected = oracle.halo_attention(
    *[t.numpy() for t in tensors], kernel_size=case.kernel_size, border=border
  )
  received = _exported(attention(case, "auto", window_mask=False), tensors)
  assert_close([received], [expected], 1e-10)


@both_borders
def test_excluded_keys_with_far_higher_logits_have_no_weight(border):
  """A query of a block must not attend to the keys of its neighbors, however high they are."""
  case = Case((1, 16, 16, 1, 4), (3, 3), border=border)
  *tensors, _ = inputs(case, tf.float32)
  key = np.array(tensors[1])
  key[:, ::4, ::4] *= 300.0
  tensors[1] = tf.constant(key)
  received = _exported(attention(case, "blocked"), tensors)
  assert_close([received], [attention(case, "reference")(*tensors)], 1e-4)


def test_chunks_of_images_give_the_same_result():
  case = Case((4, 30, 30, 2, 4), (7, 7))
  *tensors, _ = inputs(case, tf.float32)
  with use_target_device("CPU"):
    received = _exported(attention(case, "blocked"), tensors)
  assert_close([received], [attention(case, "reference")(*tensors)], 1e-5)


@pytest.mark.parametrize("border", ["zero", "mask"])
@pytest.mark.parametrize("dilation_rate", [1, 2])
def test_parts_of_the_blocks_give_the_same_result(border, dilation_rate, monkeypatch):
  for name in ("_CACHED_LOGITS", "_CACHED_JOINED_LOGITS"):
    monkeypatch.setattr(export_attention, name, 4 * 3 * 16 * 36)
  case = Case((2, 19, 22, 4, 4), (3, 3), dilation_rate, border=border)
  *tensors, _ = inputs(case)
  received = _exported(attention(case, "blocked"), tensors)
  assert_close([received], [attention(case, "reference")(*tensors)], 1e-10)


@both_borders
@pytest.mark.parametrize("batch", [1, 3])
def test_parts_of_one_image_and_of_an_unknown_batch(batch, border, monkeypatch):
  for name in ("_CACHED_LOGITS", "_CACHED_JOINED_LOGITS"):
    monkeypatch.setattr(export_attention, name, 3 * 2 * 16 * 100)
  case = Case((batch, 16, 12, 2, 4), (7, 7), border=border)
  *tensors, _ = inputs(case, tf.float32)
  images = tf.TensorSpec([1 if batch == 1 else None, *tensors[0].shape[1:]])
  with ops.tracing_for_export():
    function = tf.function(attention(case, "auto"))
    exported = function.get_concrete_function(*[images] * 3, *tensors[3:])
  kinds = [node.op for node in exported.graph.as_graph_def().node]
  assert kinds.count("Softmax") > 1
  assert_close([exported(*tensors)], [attention(case, "reference")(*tensors)], 1e-5)


@pytest.mark.parametrize("border", ["zero", "mask"])
def test_graph_of_an_unknown_batch_computes_no_shapes(border):
  case = Case((3, 16, 12, 4, 4), (7, 7), border=border)
  *tensors, _ = inputs(case, tf.float32)
  images = tf.TensorSpec([None, *tensors[0].shape[1:]])
  with ops.tracing_for_export():
    function = tf.function(attention(case, "auto"))
    exported = function.get_concrete_function(*[images] * 3, *tensors[3:])
  assert "Shape" not in {node.op for node in exported.graph.as_graph_def().node}
  assert_close([exported(*tensors)], [attention(case, "reference")(*tensors)], 1e-5)
  assert exported(*[t[:0] for t in tensors[:3]], *tensors[3:]).shape == [0, 16, 12, 4, 4]


@both_borders
@pytest.mark.parametrize("size", [5, 14, 28, None])
def test_masks_are_bounded(size, border, quantizable):
  case = Case((1, 1, 1, 2, 4), (7, 7), border=border)
  image = tf.TensorSpec([None, size, size, 2, 4])
  table = tf.TensorSpec([7, 2])
  function = attention(case, "auto")
  largest = _constants(function, image, image, image, table, table)
  assert largest < 100 if quantizable else largest == 1e9


@pytest.mark.parametrize("size", [(8, 8), (7, 9), (None, None)])
def test_masks_of_the_stem_are_bounded(size):
  image = tf.TensorSpec([None, *size, 2, 4])
  assert _constants(ops.block_attention_2d, image, image, image) < 100


@pytest.mark.parametrize("size", [(8, 8), (7, 9)])
def test_exported_stem_equals_the_ordinary_one(size):
  *tensors, _ = inputs(Case((2, *size, 2, 4), (3, 3)))
  tensors = tensors[:3]
  expected = ops.block_attention_2d(*tensors)
  assert_close([_exported(ops.block_attention_2d, tensors)], [expected], 1e-12)
  assert_close([_exported(ops.block_attention_2d, tensors, True)], [expected], 1e-12)


@pytest.mark.parametrize("dtype", [tf.float32, tf.float64], ids=lambda d: d.name)
def test_excluded_keys_weigh_less_than_the_rounding_error(dtype):
  mask = tf.constant([True, *[False] * 99])
  for logits in (np.zeros(100), np.arange(100.0) * 50, np.arange(100.0) * -50):
    weights = tf.nn.softmax(mask_logits(tf.constant(logits, dtype), mask, attended=1))
    excluded = tf.reduce_sum(weights[1:]).numpy()
    assert excluded <= 1.01 * np.finfo(dtype.as_numpy_dtype).eps
  assert mask_logits(tf.zeros([100]), mask, 1).numpy().min() > -math.log(100) - 17


def test_block_sizes():
  zero, masked = (window_geometry(7, 1, border) for border in ("zero", "mask"))
  assert export_block_size((56, 28), zero) == (4, 4)
  assert export_block_size((14, 7), zero) == (7, 7)
  assert export_block_size((14, None), masked) == (14, 4)


def test_blocks_of_narrow_heads_that_share_products_are_smaller():
  geometry = window_geometry(7, 1, "zero")
  with ops.tracing_for_export(product_columns=0):
    assert export_block_size((56, 28), geometry, 8) == (4, 4)
  with ops.tracing_for_export(product_columns=16):
    assert export_block_size((56, 28), geometry, 8) == (2, 4)
    assert export_block_size((56, 28), geometry, 16) == (4, 4)
    assert export_block_size((56, 7), geometry, 8) == (4, 7)
    assert export_block_size((56, 28), window_geometry(3, 1, "zero"), 8) == (4, 4)
