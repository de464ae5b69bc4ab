"""Closed forms of Keras's layers against their weights and TensorFlow's profiler."""

import keras
import pytest
import tf_keras

from sasa_tf.analysis import Convention, cost_model
from sasa_tf.analysis.cost.graph_profile import profile_graph
from sasa_tf.analysis.cost.keras_graphs import graph_of

KERASES = {"keras": keras, "tf_keras": tf_keras}
both = pytest.mark.parametrize("flavour", KERASES)

# What the profiler counts, too.
PROFILER = Convention("profiler", "", {"multiply_add": 2, "elementwise": 1, "pool": 1})

# Name -> (class, arguments, shape of the input).
COUNTED = {
  "convolution": ("Conv2D", {"filters": 6, "kernel_size": (3, 5), "strides": 2}, (13, 11, 4)),
  "padded": ("Conv2D", {"filters": 6, "kernel_size": 3, "padding": "same"}, (13, 11, 4)),
  "without bias": ("Conv2D", {"filters": 6, "kernel_size": 7, "use_bias": False}, (13, 11, 4)),
  "in one dimension": ("Conv1D", {"filters": 6, "kernel_size": 3}, (13, 4)),
  "depthwise": ("DepthwiseConv2D", {"kernel_size": 3, "depth_multiplier": 2}, (13, 11, 4)),
  "separable": (
    "SeparableConv2D",
    {"filters": 6, "kernel_size": 3, "depth_multiplier": 2},
    (13, 11, 4),
  ),
  "transposed": ("Conv2DTranspose", {"filters": 6, "kernel_size": 2, "strides": 2}, (13, 11, 4)),
  "dense": ("Dense", {"units": 9}, (7,)),
  "maximum": ("MaxPooling2D", {"pool_size": 3, "strides": 2, "padding": "same"}, (13, 11, 4)),
  "average": ("AveragePooling2D", {"pool_size": 2}, (13, 11, 4)),
  "global average": ("GlobalAveragePooling2D", {}, (13, 11, 4)),
}

# Name -> (class, arguments, kind of work, how often on an input of 6 x 5 x 4).
PRICED = {
  "batch norm": ("BatchNormalization", {}, {"normalize": 120}),
  "batch norm, no scale": ("BatchNormalization", {"scale": False}, {"normalize": 120}),
  "layer norm": ("LayerNormalization", {"axis": [1, 2, 3]}, {"normalize": 120}),
  "group norm": ("GroupNormalization", {"groups": 2}, {"normalize": 120}),
  "relu": ("ReLU", {}, {"activate": 120}),
  "activation": ("Activation", {"activation": "gelu"}, {"activate": 120}),
  "linear": ("Activation", {"activation": "linear"}, {}),
  "softmax": ("Softmax", {}, {"softmax": 120}),
  "softmax by name": ("Activation", {"activation": "softmax"}, {"softmax": 120}),
  "dropout": ("Dropout", {"rate": 0.5}, {}),
  "flatten": ("Flatten", {}, {}),
  "reshape": ("Reshape", {"target_shape": (3, 40)}, {}),
  "padding": ("ZeroPadding2D", {}, {}),
  "upsampling": ("UpSampling2D", {}, {}),
}


def functional(module, name, arguments, shape):
  inputs = module.Input(shape)
  return module.Model(inputs, getattr(module.layers, name)(**arguments)(inputs))


def count(weights):
  return sum(int(keras.ops.size(weight)) for weight in weights)


@both
@pytest.mark.parametrize("case", COUNTED)
def test_as_the_profiler_and_the_weights(flavour, case):
  name, arguments, shape = COUNTED[case]
  model = functional(KERASES[flavour], name, arguments, shape)
  cost = cost_model(model, shape, PROFILER)
  profile = profile_graph(model, [shape])
  print(f"{flavour:9} {case:16} {cost.flops:7,} by rule, {profile.flops:7,} by the profiler")
  assert cost.flops == profile.flops > 0
  assert not profile.uncounted
  assert cost.parameters == count(model.trainable_weights)
  assert cost.layers[-1].output_shape == tuple(model.output_shape[1:])


@both
@pytest.mark.parametrize("case", PRICED)
def test_priced_by_the_element(flavour, case):
  name, arguments, work = PRICED[case]
  model = functional(KERASES[flavour], name, arguments, (6, 5, 4))
  cost = cost_model(model)
  assert not cost.unknown
  assert cost.layers[-1].work == work
  assert cost.parameters == count(model.trainable_weights)
  assert cost.statistics == count(model.non_trainable_weights)


@both
@pytest.mark.parametrize("activation", [None, "relu", "softmax"])
def test_fused_activations_count(flavour, activation):
  model = functional(KERASES[flavour], "Dense", {"units": 9, "activation": activation}, (7,))
  work = cost_model(model).layers[-1].work
  expected = {"relu": {"activate": 9}, "softmax": {"softmax": 9}}.get(activation, {})
  assert work == {"multiply_add": 63, "elementwise": 9, **expected}


@both
@pytest.mark.parametrize("name", ["Add", "Multiply", "Average", "Maximum"])
def test_merging_layers_count_operands_less_one(flavour, name):
  module = KERASES[flavour]
  inputs = [module.Input((4, 4, 2)) for _ in range(3)]
  model = module.Model(inputs, getattr(module.layers, name)()(inputs))
  assert cost_model(model).layers[-1].work == {"elementwise": 64}


@both
def test_operators_count_as_layers_do(flavour):
  module = KERASES[flavour]
  inputs = module.Input((4, 4, 2))
  model = module.Model(inputs, inputs + 2 * inputs)
  cost = cost_model(model)
  assert [layer.work for layer in cost.layers] == [{}, {"elementwise": 32}, {"elementwise": 32}]


@both
@pytest.mark.parametrize(
  ("name", "arguments"),
  [
    ("UpSampling2D", {"interpolation": "bilinear"}),
    ("Conv2DTranspose", {"filters": 2, "kernel_size": 3}),
  ],
)
def test_only_what_the_rule_knows(flavour, name, arguments):
  cost = cost_model(functional(KERASES[flavour], name, arguments, (4, 4, 2)))
  assert bool(cost.unknown) == (name == "UpSampling2D")


def test_channels_first_counts_the_same():
  shapes = {"channels_last": (9, 8, 3), "channels_first": (3, 9, 8)}
  costs = [
    cost_model(
      functional(tf_keras, "Conv2D", {"filters": 4, "kernel_size": 3, "data_format": name}, shape)
    )
    for name, shape in shapes.items()
  ]
  assert costs[0].flops == costs[1].flops > 0
  assert costs[0].parameters == costs[1].parameters == 112


@both
def test_groups_divide_the_window(flavour):
  whole, halves = (
    cost_model(
      functional(
        KERASES[flavour],
        "Conv2D",
        {"filters": 6, "kernel_size": 3, "groups": groups, "use_bias": False},
        (5, 5, 4),
      )
    )
    for groups in (1, 2)
  )
  assert (2 * halves.flops, 2 * halves.parameters) == (whole.flops, whole.parameters)


def test_a_graph_is_only_of_functional_models():
  assert graph_of(keras.layers.Dense(1)) is None
  assert len(graph_of(functional(keras, "Dense", {"units": 1}, (2,))).calls) == 2
