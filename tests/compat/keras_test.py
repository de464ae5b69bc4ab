"""The layer calls of functional models."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from sasa_tf.compat.keras import graph_of

both = pytest.mark.parametrize("module", [keras, tf_keras], ids=["keras", "tf_keras"])


@both
def test_graph_has_the_calls_of_a_functional_model(module):
  inputs = module.Input((4,))
  double = module.layers.Dense(2, name="double")
  added = module.layers.Add(name="add")([double(inputs), double(inputs)])
  graph = graph_of(module.Model(inputs, added))
  names = [call.layer.name for call in graph.calls if call.inputs]
  assert names == ["double", "double", "add"]
  (add,) = [call for call in graph.calls if call.layer.name == "add"]
  assert len(add.inputs) == 2 and graph.outputs == add.outputs
  assert add.dtypes == ("float32", "float32")
  assert {call.inputs for call in graph.calls if call.layer is double} == {graph.inputs}


@both
def test_apply_repeats_a_call_with_its_other_arguments(module):
  inputs = module.Input((3,))
  dropped = module.layers.Dropout(0.5, name="dropout")(inputs, training=False)
  (call,) = [c for c in graph_of(module.Model(inputs, dropped)).calls if c.inputs]
  np.testing.assert_array_equal(call.apply([tf.ones([2, 3])]), np.ones([2, 3]))


@both
def test_graph_of_a_sequential_model(module):
  model = module.Sequential([module.Input((4,)), module.layers.Dense(1, name="dense")])
  assert [call.layer.name for call in graph_of(model).calls if call.inputs] == ["dense"]


@both
def test_other_objects_have_no_graph(module):
  assert graph_of(module.layers.Dense(1)) is None
  assert graph_of(module.Sequential([module.layers.Dense(1)])) is None
