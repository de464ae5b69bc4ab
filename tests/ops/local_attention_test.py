"""The public functions: argument errors, and attention weights."""

import numpy as np
import pytest
import tensorflow as tf

from sasa_tf import ops
from tests.ops import oracle
from tests.ops.cases import CASES, FEW, Case, inputs

X = tf.zeros([1, 5, 5, 2, 4])
TABLE = tf.zeros([3, 2])


@pytest.mark.parametrize(
  "tensors, arguments, message",
  [
    ([X, X, X], {"kernel_size": 4}, r"kernel_size must be odd.*\(4, 4\).*Use \(5, 5\)"),
    ([X, X, X], {"kernel_size": 0}, "positive int or a pair"),
    ([X, X, X], {"dilation_rate": (1, 2, 3)}, "dilation_rate must be a positive int or a pair"),
    ([X, X, X], {"border": "reflect"}, "border must be one of.*'reflect'"),
    ([X, X, X], {"implementation": "fastest"}, "implementation must be one of.*'fastest'"),
    (
      [X, X, X],
      {"window_mask": False, "implementation": "reference"},
      "window_mask=False.*'reference' gathers each window exactly",
    ),
    ([X[0], X, X], {}, r"query must have shape \[B, H, W, N, D\].*Split the channels"),
    ([X, X[:, :4], X], {}, "must have one shape.*and key"),
    ([X, X, X[..., :2]], {}, "must have one shape.*and value"),
    ([X, X, tf.cast(X, tf.float64)], {}, "must have one dtype.*value float64"),
    ([tf.cast(X, tf.int32)] * 3, {}, "must be floating point; received int32"),
    ([X, X, X, TABLE], {"kernel_size": 3}, "go together.*relative_columns is None"),
    ([X, X, X, None, TABLE], {"kernel_size": 3}, "go together.*relative_rows is None"),
    ([X, X, X, TABLE, TABLE], {"kernel_size": 5}, r"relative_rows must have shape.*\[5, 2\]"),
    (
      [X, X, X, TABLE, TABLE],
      {"kernel_size": (3, 5)},
      r"relative_columns must have shape.*\[5, 2\]",
    ),
    (
      [X[..., :3], X[..., :3], X[..., :3], TABLE, TABLE],
      {"kernel_size": 3},
      "must be even with relative positions.*D = 3",
    ),
    ([X, None, X], {}, "attention without keys needs relative_rows and relative_columns"),
  ],
)
def test_invalid_arguments(tensors, arguments, message):
  with pytest.raises(ValueError, match=message):
    ops.local_attention_2d(*tensors, **arguments)


def test_unknown_channels():
  attend = tf.function(lambda x: ops.local_attention_2d(x, x, x))
  with pytest.raises(ValueError, match="known when the graph is built"):
    attend.get_concrete_function(tf.TensorSpec([1, 5, 5, None, 4]))


def test_accepts_lists_and_arrays():
  x = np.ones([1, 2, 2, 1, 2], np.float32)
  result = ops.local_attention_2d(x.tolist(), x, x, kernel_size=1)
  assert result.dtype == tf.float32
  np.testing.assert_allclose(result, x)


def test_output_keeps_static_shape():
  attend = tf.function(lambda x: ops.local_attention_2d(x, x, x))
  concrete = attend.get_concrete_function(tf.TensorSpec([None, None, 9, 2, 4]))
  assert concrete.structured_outputs.shape.as_list() == [None, None, 9, 2, 4]


@pytest.mark.parametrize("name", [*FEW, "kernel_larger_than_image-zero"])
def test_weights_match_oracle(name):
  case = CASES[name]
  query, key, _, rows, columns, _ = inputs(case)
  weights = ops.local_attention_weights(query, key, rows, columns, **case.arguments, scale=0.5)
  expected = oracle.local_attention_weights(
    *[t.numpy() for t in (query, key, rows, columns)], **case.arguments, scale=0.5
  )
  np.testing.assert_allclose(weights, expected, atol=1e-12)
  np.testing.assert_allclose(tf.reduce_sum(weights, [-2, -1]), np.ones(case.shape[:4]))


@pytest.mark.parametrize("name", FEW)
def test_weights_of_selected_pixels(name):
  case = CASES[name]
  query, key, _, rows, columns, _ = inputs(case)
  height, width = case.shape[1:3]
  pixels = np.array([[0, 0], [height - 1, width - 1], [height // 2, 1]])
  weights = ops.local_attention_weights(query, key, rows, columns, **case.arguments, pixels=pixels)
  everywhere = ops.local_attention_weights(query, key, rows, columns, **case.arguments)
  np.testing.assert_allclose(weights, everywhere.numpy()[:, pixels[:, 0], pixels[:, 1]], 1e-12)


def test_weights_without_keys():
  case = Case((1, 4, 5, 1, 2), (3, 3), border="mask")
  query, _, _, rows, columns, _ = inputs(case)
  weights = ops.local_attention_weights(query, None, rows, columns, **case.arguments)
  expected = oracle.local_attention_weights(
    query.numpy(), None, rows.numpy(), columns.numpy(), **case.arguments
  )
  np.testing.assert_allclose(weights, expected, atol=1e-12)


@pytest.mark.parametrize("pixel", [(5, 0), (0, 5), (-1, 0)])
def test_weights_of_pixels_outside_the_image(pixel):
  with pytest.raises(tf.errors.InvalidArgumentError, match="outside the image"):
    ops.local_attention_weights(X, X, pixels=[pixel])


@pytest.mark.parametrize("pixels", [[[0.0, 1.0]], [0, 1], [[0, 1, 2]]])
def test_weights_of_invalid_pixels(pixels):
  with pytest.raises(ValueError, match=r"pixels must be integers of shape \[P, 2\]"):
    ops.local_attention_weights(X, X, pixels=pixels)
