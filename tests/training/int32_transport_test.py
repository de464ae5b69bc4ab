"""int32 tensors are converted to int64 and restored."""

import collections

import numpy as np
import pytest
import tensorflow as tf

from sasa_tf.training.step.int32_transport import Int32Transport

Pair = collections.namedtuple("Pair", ["first", "second"])


def elements(structure):
  """Returns a transport, and its wrapped dataset of two equal elements."""
  transport = Int32Transport()
  build = transport.wrap_dataset_fn(lambda params, input_context=None: params)
  return transport, build(tf.data.Dataset.from_tensors(structure).repeat(2))


@pytest.mark.parametrize(
  "structure",
  [
    tf.constant([1, 2]),
    (tf.constant([1.5]), tf.constant([3, -4])),
    {"a": tf.constant(7), "b": tf.constant(2**40, tf.int64), "c": tf.constant([True])},
    (tf.constant([1.5]), {"level": {"3": tf.constant([[1, 2]])}, "name": tf.constant("x")}),
    Pair(tf.constant([5]), tf.constant([0.5])),
    (tf.ragged.constant([[1], [2, 3]]), tf.constant(1)),
  ],
  ids=["tensor", "tuple", "dict", "nested", "namedtuple", "ragged"],
)
def test_restore_inverts_the_conversion(structure):
  transport, dataset = elements(structure)
  for spec in tf.nest.flatten(dataset.element_spec):
    assert not (isinstance(spec, tf.TensorSpec) and spec.dtype == tf.int32)
  found = list(dataset)
  assert len(found) == 2
  restored = transport.restore(found[1])
  tf.nest.assert_same_structure(restored, structure)
  flat = zip(
    tf.nest.flatten(restored, expand_composites=True),
    tf.nest.flatten(structure, expand_composites=True),
    strict=True,
  )
  for value, expected in flat:
    assert value.dtype == expected.dtype
    np.testing.assert_array_equal(value, expected)


def test_added_keys_are_not_converted():
  transport, dataset = elements((tf.constant([1.0]), {"classes": tf.constant([1, 2])}))
  images, labels = next(iter(dataset))
  _, found = transport.restore((images, {**labels, "share": tf.constant(3, tf.int64)}))
  assert found["classes"].dtype == tf.int32
  assert found["share"].dtype == tf.int64


def test_inputs_are_unchanged_without_a_wrapped_dataset():
  inputs = (tf.constant([1.0]), {"classes": tf.constant([1, 2])})
  assert Int32Transport().restore(inputs) is inputs
