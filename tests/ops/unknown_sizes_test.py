"""Sizes that are unknown when the graph is built are compared when it runs."""

import pytest
import tensorflow as tf

from sasa_tf import ops

SHAPE = (2, 5, 6, 2, 4)
OTHERS = [(1, 5, 6, 2, 4), (4, 5, 6, 2, 4), (2, 4, 6, 2, 4), (2, 6, 5, 2, 4), (2, 5, 1, 2, 4)]


def _traced(attend, shape, jit):
  spec = tf.TensorSpec(shape)
  return tf.function(attend, input_signature=[spec] * 3, jit_compile=jit, autograph=False)


@pytest.mark.parametrize("jit", [False, True], ids=["graph", "XLA"])
@pytest.mark.parametrize("argument", [1, 2], ids=["key", "value"])
@pytest.mark.parametrize("name", [*ops.available_implementations(), "block_attention_2d"])
def test_key_or_value_of_another_size(name, argument, jit):
  def attend(*tensors):
    if name == "block_attention_2d":
      return ops.block_attention_2d(*tensors)
    return ops.local_attention_2d(*tensors, kernel_size=3, implementation=name)

  attend = _traced(attend, [None, None, None, 2, 4], jit)
  tensors = [tf.ones(SHAPE)] * 3
  assert attend(*tensors).shape == SHAPE
  message = None if jit else f"query and {('query', 'key', 'value')[argument]} must have one shape"
  for other in OTHERS:
    wrong = [*tensors]
    wrong[argument] = tf.ones(other)
    with pytest.raises((tf.errors.InvalidArgumentError, ValueError), match=message):
      attend(*wrong)


def test_known_sizes_need_no_check():
  attend = _traced(lambda *x: ops.local_attention_2d(*x, implementation="blocked"), SHAPE, False)
  operations = attend.get_concrete_function().graph.get_operations()
  assert not [o for o in operations if "Assert" in o.type]


@pytest.mark.parametrize("jit", [False, True], ids=["graph", "XLA"])
@pytest.mark.parametrize("implementation", ops.available_implementations())
def test_tables_of_another_size(implementation, jit):
  @tf.function(input_signature=[tf.TensorSpec([None, None])], jit_compile=jit)
  def attend(table):
    x = tf.ones(SHAPE)
    return ops.local_attention_2d(
      x, x, x, table, table, kernel_size=3, implementation=implementation
    )

  assert attend(tf.ones([3, 2])).shape == SHAPE
  with pytest.raises((tf.errors.InvalidArgumentError, ValueError)):
    attend(tf.ones([1, 2]))


@pytest.mark.parametrize("implementation", ops.available_implementations())
def test_dilation_rate_larger_than_the_image(implementation):
  """All neighbors but the query itself are outside; no memory is needed for what is between."""
  x = tf.random.stateless_normal(SHAPE, [1, 2])
  arguments = {"kernel_size": (3, 5), "implementation": implementation, "border": "mask"}
  found = ops.local_attention_2d(x, x, 2.0 * x, dilation_rate=(7, 2**31 - 1), **arguments)
  tf.debugging.assert_near(found, 2.0 * x)
  zero = ops.local_attention_2d(
    0.0 * x, x, x, dilation_rate=2**31 - 1, **arguments | {"border": "zero"}
  )
  tf.debugging.assert_near(zero, x / 15.0)


@pytest.mark.parametrize("rate", [2**31, (1, 2**40), 0, -1, True, 1.0])
def test_invalid_dilation_rates(rate):
  x = tf.ones(SHAPE)
  with pytest.raises(
    ValueError, match=r"dilation_rate must be a positive int .* less than 2\*\*31"
  ):
    ops.local_attention_2d(x, x, x, dilation_rate=rate)
