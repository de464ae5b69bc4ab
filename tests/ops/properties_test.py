"""Mathematical properties that every implementation of local attention has."""

import numpy as np
import pytest
import tensorflow as tf

from sasa_tf import ops
from tests.ops.cases import (
  TOLERANCE,
  Case,
  assert_close,
  attention,
  inputs,
  most_precise_dtype,
  output_and_gradients,
)

pytestmark = pytest.mark.parametrize("implementation", ops.available_implementations())


def test_window_of_one_pixel_returns_the_value(implementation):
  case = Case((2, 5, 9, 2, 4), (1, 1))
  query, key, value, rows, columns, _ = inputs(case, most_precise_dtype(implementation))
  result = attention(case, implementation)(query, key, value, rows, columns)
  assert_close([result], [value], TOLERANCE[value.dtype])


def test_interior_is_translation_equivariant(implementation):
  case = Case((1, 23, 21, 1, 4), (5, 3))
  *tensors, _ = inputs(case, most_precise_dtype(implementation))
  moved = [tf.roll(t, [3, 2], axis=[1, 2]) for t in tensors[:3]] + tensors[3:]
  result, after = (attention(case, implementation)(*t) for t in (tensors, moved))
  tolerance = TOLERANCE[most_precise_dtype(implementation)]
  assert_close([after[:, 5:-2, 3:-1]], [result[:, 2:-5, 1:-3]], tolerance)


@pytest.mark.parametrize("pixel", [(0, 0), (8, 7), (16, 19)])
def test_gradients_are_zero_outside_the_window(implementation, pixel):
  case = Case((1, 17, 20, 1, 2), (5, 3), (2, 1))
  *tensors, _ = inputs(case, most_precise_dtype(implementation))
  upstream = np.zeros(case.shape, tensors[0].dtype.as_numpy_dtype)
  upstream[0, pixel[0], pixel[1]] = 1.0
  gradients = output_and_gradients(attention(case, implementation), [*tensors, upstream])
  rows, columns = np.indices([17, 20])
  down, right = rows - pixel[0], columns - pixel[1]
  window = (abs(down) <= 4) & (down % 2 == 0) & (abs(right) <= 1)
  for gradient in gradients[2:4]:
    magnitude = np.abs(gradient.numpy()).sum(axis=(0, 3, 4))
    assert (magnitude[~window] == 0.0).all()
    assert (magnitude[window] > 0.0).all()


def test_window_of_the_image_size_equals_global_attention(implementation):
  case = Case((2, 5, 6, 2, 4), (9, 11), border="mask")
  query, key, value, *_ = inputs(case, most_precise_dtype(implementation))
  flat = [tf.einsum("bhwnd->bnhwd", t) for t in (query, key, value)]
  q, k, v = (tf.reshape(t, [2, 2, 30, 4]) for t in flat)
  expected = tf.matmul(tf.nn.softmax(tf.matmul(q, k, transpose_b=True)), v)
  expected = tf.einsum("bnhwd->bhwnd", tf.reshape(expected, [2, 2, 5, 6, 4]))
  result = attention(case, implementation)(query, key, value)
  assert_close([result], [expected], TOLERANCE[query.dtype])


def test_mask_border_equals_a_crop_of_a_larger_image(implementation):
  """With border="mask" pixels outside the image do not affect the result."""
  case = Case((1, 11, 18, 1, 4), (3, 5), border="mask")
  query, key, value, rows, columns, _ = inputs(case, most_precise_dtype(implementation))
  whole = attention(case, implementation)(query, key, value, rows, columns)
  cut = [t[:, :, :9] for t in (query, key, value)]
  part = attention(case, implementation)(*cut, rows, columns)
  assert_close([part[:, :, :7]], [whole[:, :, :7]], TOLERANCE[query.dtype])
  assert float(tf.reduce_max(tf.abs(part[:, :, 7:] - whole[:, :, 7:9]))) > 1e-3


def test_images_and_heads_are_independent(implementation):
  case = Case((2, 9, 17, 2, 4), (3, 3))
  query, key, value, rows, columns, _ = inputs(case, most_precise_dtype(implementation))
  result = attention(case, implementation)(query, key, value, rows, columns)
  alone = attention(case, implementation)(
    *[t[1:, :, :, 1:] for t in (query, key, value)], rows, columns
  )
  assert_close([alone], [result[1:, :, :, 1:]], TOLERANCE[query.dtype])


@pytest.mark.parametrize("jit", [False, True])
def test_is_deterministic(implementation, jit):
  case = Case((2, 17, 19, 2, 4), (5, 5))
  tensors = inputs(case, tf.float32)
  compute = tf.function(
    lambda tensors: output_and_gradients(attention(case, implementation), tensors), jit_compile=jit
  )
  for first, second in zip(compute(tensors), compute(tensors), strict=True):
    np.testing.assert_array_equal(first, second)


def test_scale_multiplies_the_query(implementation):
  case = Case((1, 5, 9, 1, 4), (3, 3))
  query, *rest = inputs(case, most_precise_dtype(implementation))[:-1]
  scaled = attention(case, implementation, scale=0.25)(query, *rest)
  unscaled = attention(case, implementation)(0.25 * query, *rest)
  assert_close([scaled], [unscaled], TOLERANCE[query.dtype])


def test_empty_batch(implementation):
  case = Case((0, 5, 17, 1, 4), (3, 3))
  *tensors, _ = inputs(case, most_precise_dtype(implementation))
  assert attention(case, implementation)(*tensors).shape == case.shape
