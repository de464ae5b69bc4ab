"""Cost of models: sizes, nesting, sharing, layers without a rule, bytes, invalid arguments."""

import doctest

import keras
import pytest
import tensorflow as tf
import tf_keras

import sasa_tf.keras
import sasa_tf.tf_keras
from sasa_tf import layers
from sasa_tf.analysis import Convention, cost_model, layer_rule
from sasa_tf.analysis.cost.graph_profile import profile_graph
from sasa_tf.analysis.cost.registry import find_rule

BINDINGS = {"keras": (keras, sasa_tf.keras), "tf_keras": (tf_keras, sasa_tf.tf_keras)}
both = pytest.mark.parametrize("keras_api", BINDINGS)

# The reference implementation, as the others take long to trace in tf_keras with unknown sizes.
SMALL = {
  "model_id": 26,
  "width_multiplier": 0.125,
  "num_heads": 2,
  "implementation": "reference",
}


def count(weights):
  return sum(int(keras.ops.size(weight)) for weight in weights)


def classifier(keras_api, size=None, **arguments):
  module, binding = BINDINGS[keras_api]
  inputs = module.Input((size, size, 3))
  features = binding.SASAResNet(name="backbone", **{**SMALL, **arguments})(inputs)["5"]
  pooled = module.layers.GlobalAveragePooling2D(name="pool")(features)
  return module.Model(inputs, module.layers.Dense(10, name="classifier")(pooled), name="all")


@both
@pytest.mark.parametrize(
  "arguments",
  [
    {},
    {"attention_groups": ()},
    {"attention_groups": (2, 4), "stem": "attention"},
    {"attention_groups": (), "baseline": "non_local"},
  ],
)
def test_parameters_match_the_weights(keras_api, arguments):
  model = classifier(keras_api, **arguments)
  cost = cost_model(model, (64, 64, 3))
  assert not cost.unknown
  assert cost.parameters == count(model.trainable_weights)
  assert cost.non_trainable_parameters == count(model.non_trainable_weights)


def test_every_layer_of_the_library_has_a_rule():
  names = [name for name in layers.__all__ if name.endswith("Base")]
  assert len(names) >= 5
  for name in names:
    assert find_rule(getattr(layers, name).__new__(getattr(layers, name))), (
      f"{name} has no rule: give it one in sasa_tf/analysis/cost/"
    )


def test_both_keras_versions_cost_the_same():
  keras_cost, tf_keras_cost = (cost_model(classifier(keras_api)) for keras_api in BINDINGS)
  assert keras_cost.flops == tf_keras_cost.flops > 1e7
  assert keras_cost.bytes == tf_keras_cost.bytes
  assert len(keras_cost.layers) == len(tf_keras_cost.layers)


def test_flops_of_a_convolutional_network_match_the_profiler():
  model = classifier("tf_keras", 96, attention_groups=())
  # In tf_keras, batch norm is one operation, which the profiler does not count.
  kinds = Convention("profiler", "", {"multiply_add": 2, "pool": 1, "elementwise": 1})
  profile = profile_graph(model, [(96, 96, 3)])
  assert cost_model(model, convention=kinds).flops == profile.flops
  assert profile.uncounted == {"FusedBatchNormV3": 29, "Relu": 25}


@both
def test_any_size_independent_of_the_size_the_model_was_built_for(keras_api):
  fixed, free = classifier(keras_api, 64), classifier(keras_api)
  for shape in ((64, 64, 3), (75, 101, 3), (1, 2, 3)):
    costs = [cost_model(model, shape) for model in (fixed, free)]
    assert costs[0].flops == costs[1].flops
    assert costs[0].input_shapes == (shape,)
  shapes = {layer.name: layer.output_shape for layer in cost_model(free, (75, 101, 3)).layers}
  assert shapes["backbone/group1_block1_activation"] == (19, 26, 32)
  assert shapes["backbone/group4_block1_activation"] == (3, 4, 256)


def test_shapes_match_a_forward_pass():
  _, binding = BINDINGS["keras"]
  backbone = binding.SASAResNet(**SMALL, stem="attention")
  outputs = backbone(tf.zeros([1, 45, 70, 3]))
  shapes = {layer.name: layer.output_shape for layer in cost_model(backbone, (45, 70, 3)).layers}
  for level, blocks in zip("2345", (1, 2, 4, 1), strict=True):
    name = f"group{int(level) - 1}_block{blocks}_activation"
    assert shapes[name] == tuple(outputs[level].shape[1:])


def test_default_size_is_that_of_the_model_or_of_the_paper():
  assert cost_model(classifier("keras", 32)).input_shapes == ((32, 32, 3),)
  assert cost_model(classifier("keras")).input_shapes == ((224, 224, 3),)


@both
def test_weights_of_a_shared_layer_are_counted_once(keras_api):
  module, _ = BINDINGS[keras_api]
  shared = module.layers.Conv2D(4, 3, padding="same", name="shared")
  large, small = module.Input((8, 8, 4)), module.Input((4, 4, 4))
  model = module.Model([large, small], [shared(large), shared(small)])
  costs = [layer for layer in cost_model(model).layers if layer.type == "Conv2D"]
  assert sorted(layer.name for layer in costs) == ["shared", "shared:2"]
  assert sorted(layer.parameters for layer in costs) == [0, 148]
  assert cost_model(model).parameters == 148
  assert sorted(layer.op_counts["multiply_add"] for layer in costs) == [16 * 144, 64 * 144]


@both
def test_sequential_models(keras_api):
  module, binding = BINDINGS[keras_api]
  layers = [binding.LocalSelfAttention2D(8, num_heads=2), module.layers.Flatten()]
  model = module.Sequential([module.Input((4, 4, 3)), *layers, module.layers.Dense(2)])
  cost = cost_model(model)
  assert cost.parameters == count(model.trainable_weights)
  with pytest.raises(ValueError, match=r"dense.* has 258 weights, but on inputs of shape \[\(512,"):
    cost_model(model, (8, 8, 3))


def custom_layer(module):
  class Halving(module.layers.Layer):
    """A layer without a rule and without `compute_output_shape`, but with weights."""

    def build(self, input_shape):
      self.gain = self.add_weight(name="gain", shape=(input_shape[-1],))
      self.built = True

    def call(self, inputs):
      return inputs[:, ::2, ::2] * self.gain

  return Halving


@both
def test_layer_without_a_rule_is_listed_as_unknown(keras_api):
  module, binding = BINDINGS[keras_api]
  inputs = module.Input((None, None, 3))
  x = custom_layer(module)(name="halving")(inputs)
  outputs = binding.LocalSelfAttention2D(8, num_heads=2, name="attention")(x)
  cost = cost_model(module.Model(inputs, outputs), (9, 7, 3))
  (unknown,) = cost.unknown
  assert (unknown.name, unknown.type) == ("halving", "Halving")
  assert unknown.flops is unknown.op_counts is unknown.bytes is None and not unknown.known
  assert unknown.parameters == 3 and unknown.output_shape == (5, 4, 3)
  attention = cost.layers[-1]
  assert attention.output_shape == (5, 4, 8)
  assert cost.flops == attention.flops and cost.bytes == attention.bytes
  assert cost.parameters == attention.parameters + 3
  assert cost.in_convention("mac").unknown == cost.unknown


@both
def test_function_without_a_rule_is_listed_as_unknown(keras_api):
  module, _ = BINDINGS[keras_api]
  inputs = module.Input((4, 4, 3))
  function = keras.ops.sin if keras_api == "keras" else tf.sin
  (unknown,) = cost_model(module.Model(inputs, function(inputs))).unknown
  assert "sin" in unknown.name and unknown.output_shape == (4, 4, 3)


def test_subclass_that_overrides_call_is_unknown():
  class Doubled(keras.layers.Conv2D):
    def call(self, inputs):
      return 2 * super().call(inputs)

  class Renamed(keras.layers.Conv2D):
    """Inherits the call of its base class."""

  inputs = keras.Input((4, 4, 3))
  outputs = Renamed(2, 1, name="renamed")(Doubled(2, 1, name="doubled")(inputs))
  cost = cost_model(keras.Model(inputs, outputs))
  assert [layer.name for layer in cost.unknown] == ["doubled"]
  assert cost.parameters == 3 * 2 + 2 + 2 * 2 + 2


def test_user_class_with_the_name_of_a_keras_layer_is_unknown():
  class Dense(keras.layers.Layer):
    def call(self, inputs):
      return inputs

  inputs = keras.Input((4,))
  assert len(cost_model(keras.Model(inputs, Dense()(inputs))).unknown) == 1


def test_example_of_layer_rule():
  class MyScale(keras.layers.Layer):
    def build(self, input_shape):
      self.gain = self.add_weight(name="gain", shape=(input_shape[-1],))

    def call(self, inputs):
      return inputs * self.gain

  (example,) = doctest.DocTestFinder().find(layer_rule, globs={"MyScale": MyScale})
  assert doctest.DocTestRunner().run(example, clear_globs=False) == (0, 3)
  inputs = keras.Input((5, 4, 3))
  cost = cost_model(keras.Model(inputs, MyScale()(inputs)))
  assert not cost.unknown and cost.flops == 5 * 4 * 3 and cost.parameters == 3


def test_bytes_are_those_read_and_written():
  inputs = keras.Input((8, 6, 3))
  x = keras.layers.Conv2D(4, 3, padding="same", name="convolution")(inputs)
  x = keras.layers.BatchNormalization(name="norm")(x)
  model = keras.Model(inputs, keras.layers.Flatten(name="flatten")(x))
  costs = {layer.name: layer for layer in cost_model(model).layers}
  assert costs["convolution"].activation_bytes == 4 * 48 * (3 + 4)
  assert costs["convolution"].weight_bytes == 4 * (9 * 3 * 4 + 4)
  assert costs["norm"].activation_bytes == 4 * 48 * 8
  assert costs["norm"].weight_bytes == 4 * 16
  assert costs["flatten"].bytes == 0
  batch = cost_model(model, batch_size=5, dtype="bfloat16")
  assert batch.activation_bytes == 4 * 48 * 15 * 5 // 2
  assert batch.weight_bytes == (112 + 16) * 2
  assert batch.flops == cost_model(model).flops


def test_conventions_differ_only_in_flops():
  cost = cost_model(classifier("keras"), (32, 32, 3), "mac")
  other = cost.in_convention("paper")
  assert cost.flops < other.flops and other.in_convention("mac") == cost
  assert (cost.parameters, cost.bytes) == (other.parameters, other.bytes)


def test_error_for_other_objects():
  with pytest.raises(TypeError, match=r"requires a functional .*received Dense"):
    cost_model(keras.layers.Dense(1))
  with pytest.raises(TypeError, match="a built sequential model; received Sequential"):
    cost_model(keras.Sequential([keras.layers.Dense(1)]))


@pytest.mark.parametrize(
  "shape", [(64, 64), (64, 64, 4), (0, 64, 3), (64.0, 64, 3), ((4, 4, 3),) * 2]
)
def test_unsupported_input_shapes_raise(shape):
  with pytest.raises(ValueError, match=r"all was built for \(None, None, 3\), of which H and W"):
    cost_model(classifier("keras", model_id=26), shape)


def test_other_invalid_arguments_raise():
  model = keras.Sequential([keras.Input((4, 4, 3)), keras.layers.Flatten()])
  with pytest.raises(ValueError, match="convention must be one of"):
    cost_model(model, convention="flops")
  with pytest.raises(ValueError, match="batch_size must be a positive int; received 0"):
    cost_model(model, batch_size=0)
  with pytest.raises(ValueError, match=r"dtype must be the name of a dtype.*received 'flout'"):
    cost_model(model, dtype="flout")


def test_size_error_names_the_layer():
  inputs = keras.Input((None, None, 3))
  model = keras.Model(inputs, keras.layers.Conv2D(2, 5, name="convolution")(inputs))
  with pytest.raises(
    ValueError, match=r"convolution \(Conv2D\) does not support inputs of shape \[\(3,"
  ):
    cost_model(model, (3, 3, 3))
