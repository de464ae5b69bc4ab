"""The reference implementation against nested loops and numeric gradients."""

import numpy as np
import pytest
import tensorflow as tf

from tests.ops import oracle
from tests.ops.cases import CASES, Case, assert_close, attention, inputs, output_and_gradients


@pytest.mark.parametrize("name", CASES)
def test_output_matches_oracle(name):
  case = CASES[name]
  *tensors, _ = inputs(case)
  expected = oracle.local_attention(*[t.numpy() for t in tensors], **case.arguments)
  assert_close([attention(case, "reference")(*tensors)], [expected], 1e-12)


@pytest.mark.parametrize("border", ["zero", "mask"])
@pytest.mark.parametrize("use_key, use_tables", [(True, False), (False, True)])
def test_logits_with_and_without_each_term(border, use_key, use_tables):
  case = Case((1, 4, 5, 2, 4), (3, 3), border=border)
  query, key, value, rows, columns, _ = inputs(case)
  arguments = [
    query,
    key if use_key else None,
    value,
    rows if use_tables else None,
    columns if use_tables else None,
  ]
  expected = oracle.local_attention(
    *[None if t is None else t.numpy() for t in arguments], **case.arguments, scale=0.5
  )
  actual = attention(case, "reference", scale=0.5)(*arguments)
  assert_close([actual], [expected], 1e-12)


@pytest.mark.parametrize("border", ["zero", "mask"])
def test_gradients_match_numeric_gradients(border):
  case = Case((1, 3, 4, 1, 2), (3, 5), (1, 1), border)
  tensors = inputs(case)
  *sources, upstream = [t.numpy() for t in tensors]
  _, *gradients = output_and_gradients(attention(case, "reference"), tensors)
  for source, gradient in zip(sources, gradients, strict=True):
    numeric = np.zeros_like(source)
    for index in np.ndindex(*source.shape):
      kept, losses = source[index], []
      for step in (1e-5, -1e-5):
        source[index] = kept + step
        losses.append(np.sum(upstream * oracle.local_attention(*sources, **case.arguments)))
      source[index] = kept
      numeric[index] = (losses[0] - losses[1]) / 2e-5
    np.testing.assert_allclose(gradient, numeric, atol=1e-7)


def test_float32_output_is_close_to_oracle():
  case = CASES["primes-zero"]
  *tensors, _ = inputs(case, tf.float32)
  expected = oracle.local_attention(*[t.numpy() for t in tensors], **case.arguments)
  assert_close([attention(case, "reference")(*tensors)], [expected], 1e-5)
