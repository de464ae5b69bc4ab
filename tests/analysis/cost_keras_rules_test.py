"""Closed forms of Keras layers compared to their weights and to TensorFlow's profiler."""

import keras
import pytest
import tf_keras

from sasa_tf.analysis import Convention, cost_model
from sasa_tf.analysis.cost.graph_profile import profile_graph

KERAS_MODULES = {"keras": keras, "tf_keras": tf_keras}
both = pytest.mark.parametrize("keras_api", KERAS_MODULES)

# The operations that the profiler counts too.
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

# Name -> (class, arguments, {kind of operation: count} for an input of 6 x 5 x 4).
OP_COUNTS = {
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
def test_flops_match_the_profiler_and_parameters_the_weights(keras_api, case):
  name, arguments, shape = COUNTED[case]
  model = functional(KERAS_MODULES[keras_api], name, arguments, shape)
  cost = cost_model(model, shape, PROFILER)
  profile = profile_graph(model, [shape])
  print(f"{keras_api:9} {case:16} {cost.flops:7,} by rule, {profile.flops:7,} by the profiler")
  assert cost.flops == profile.flops > 0
  assert not profile.uncounted
  assert cost.parameters == count(model.trainable_weights)
  assert cost.layers[-1].output_shape == tuple(model.output_shape[1:])


@both
@pytest.mark.parametrize("case", OP_COUNTS)
def test_op_counts_per_element(keras_api, case):
  name, arguments, counts = OP_COUNTS[case]
  model = functional(KERAS_MODULES[keras_api], name, arguments, (6, 5, 4))
  cost = cost_model(model)
  assert not cost.unknown
  assert cost.layers[-1].op_counts == counts
  assert cost.parameters == count(model.trainable_weights)
  assert cost.non_trainable_parameters == count(model.non_trainable_weights)


@both
@pytest.mark.parametrize("activation", [None, "relu", "softmax"])
def test_activation_arguments_are_counted(keras_api, activation):
  model = functional(
    KERAS_MODULES[keras_api], "Dense", {"units": 9, "activation": activation}, (7,)
  )
  counts = cost_model(model).layers[-1].op_counts
  expected = {"relu": {"activate": 9}, "softmax": {"softmax": 9}}.get(activation, {})
  assert counts == {"multiply_add": 63, "elementwise": 9, **expected}


@both
@pytest.mark.parametrize("name", ["Add", "Multiply", "Average", "Maximum"])
def test_merging_layers_count_operands_minus_one(keras_api, name):
  module = KERAS_MODULES[keras_api]
  inputs = [module.Input((4, 4, 2)) for _ in range(3)]
  model = module.Model(inputs, getattr(module.layers, name)()(inputs))
  assert cost_model(model).layers[-1].op_counts == {"elementwise": 64}


@both
def test_operators_are_counted_as_layers(keras_api):
  module = KERAS_MODULES[keras_api]
  inputs = module.Input((4, 4, 2))
  model = module.Model(inputs, inputs + 2 * inputs)
  cost = cost_model(model)
  assert [layer.op_counts for layer in cost.layers] == [
    {},
    {"elementwise": 32},
    {"elementwise": 32},
  ]


@both
@pytest.mark.parametrize(
  ("name", "arguments"),
  [
    ("UpSampling2D", {"interpolation": "bilinear"}),
    ("Conv2DTranspose", {"filters": 2, "kernel_size": 3}),
  ],
)
def test_unsupported_settings_are_unknown(keras_api, name, arguments):
  cost = cost_model(functional(KERAS_MODULES[keras_api], name, arguments, (4, 4, 2)))
  assert bool(cost.unknown) == (name == "UpSampling2D")


def test_channels_first_costs_the_same():
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
def test_convolution_groups_divide_the_cost(keras_api):
  whole, halves = (
    cost_model(
      functional(
        KERAS_MODULES[keras_api],
        "Conv2D",
        {"filters": 6, "kernel_size": 3, "groups": groups, "use_bias": False},
        (5, 5, 4),
      )
    )
    for groups in (1, 2)
  )
  assert (2 * halves.flops, 2 * halves.parameters) == (whole.flops, whole.parameters)
