"""Model Garden's classifier in the cost model, and the FLOPs that Model Garden logs."""

import pytest
import tf_keras
from official.core import train_utils
from official.vision.modeling.classification_model import ClassificationModel

import sasa_tf.tf_keras
from sasa_tf.analysis import cost_model
from sasa_tf.analysis.cost.graph_profile import profile_graph

SHAPE = (48, 64, 3)


def classifier(**arguments):
  backbone = sasa_tf.tf_keras.SASAResNet(
    26, width_multiplier=0.125, num_heads=2, input_shape=SHAPE, **arguments
  )
  specs = tf_keras.layers.InputSpec(shape=(None, *SHAPE))
  return ClassificationModel(backbone, 10, input_specs=specs, dropout_rate=0.1)


@pytest.fixture(scope="module")
def models():
  return {
    "conv": classifier(attention_groups=()),
    "reference": classifier(implementation="reference"),
    "blocked": classifier(implementation="blocked"),
  }


def test_layers_of_the_backbone_are_counted(models):
  for model in models.values():
    cost = cost_model(model)
    assert not cost.unknown and cost.input_shapes == (SHAPE,)
    assert cost.parameters == sum(w.shape.num_elements() for w in model.trainable_weights)
    assert any(layer.name.endswith("/group4_block1_add") for layer in cost.layers)
  assert cost_model(models["reference"]).flops == cost_model(models["blocked"]).flops


@pytest.fixture(scope="module")
def profiles(models):
  return {name: profile_graph(model, [SHAPE]) for name, model in models.items()}


@pytest.mark.parametrize("name", ["conv", "blocked"])
def test_profile_matches_model_garden(models, profiles, name):
  print(f"{name:10} {profiles[name]}")
  assert profiles[name].flops == train_utils.try_count_flops(models[name]) > 0


def test_operations_that_the_profiler_does_not_count(profiles):
  conv, reference, blocked = profiles.values()
  assert conv.uncounted == {"FusedBatchNormV3": 29, "Relu": 25} and not conv.loops
  assert {"FusedBatchNormV3", "Relu"} <= set(reference.uncounted)
  assert blocked.uncounted["Exp"] > 0
  assert reference.flops != blocked.flops  # unlike `cost_model`, it depends on the implementation
