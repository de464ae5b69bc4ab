"""Detectors to count: RetinaNet of our backbone, pyramid and head, up to its predictions."""

from __future__ import annotations

import functools

import keras

from sasa_tf.analysis.cost import Convention, ModelCost, cost_model
from sasa_tf.analysis.paper.tables import DETECTORS, MODELS
from sasa_tf.keras import SASAFPN, RetinaNetHead, SASAResNet

COCO_SHAPE = (640, 640, 3)
# COCO numbers its 80 categories up to 90. The conv baseline of the paper needs these two.
COCO_CLASSES = 90
COCO_ANCHORS = 6

# By this the conv baseline of Table 2 and its saving come out as printed: `paper` without what
# is not a product or a softmax.
PRODUCTS = Convention(
  "products",
  "2 a multiply-add, logits as q.(k + r), 8 a logit for the softmax; nothing else",
  {
    "multiply_add": 2,
    "key_position": 1,
    "axis_position": 2,
    "softmax": 8,
  },
)


@functools.cache
def _backbone(model: str) -> keras.Model:
  return SASAResNet(
    **MODELS[model], input_shape=COCO_SHAPE, kernel_initializer="zeros", name="backbone"
  )


@functools.cache
def _pyramid(spatial: str) -> keras.Model:
  specs = _backbone("resnet50").output_specs  # those of every ResNet-50
  return SASAFPN(specs, spatial=spatial, kernel_initializer="zeros", name="pyramid")


@functools.cache
def _head(spatial: str) -> keras.Model:
  specs = _pyramid("conv").output_specs
  return RetinaNetHead(specs, COCO_CLASSES, COCO_ANCHORS, spatial=spatial, name="head")


@functools.cache
def paper_detector_cost(name: str) -> ModelCost:
  """Returns what a detector of the paper's Table 2 costs at 640 pixels, in `PRODUCTS`.

  That is all from the image to class logits and boxes of every anchor.

  Args:
    name: key of `paper_tables.DETECTORS`.
  """
  detector = DETECTORS[name]
  images = keras.Input(COCO_SHAPE)
  features = _pyramid(detector.pyramid)(_backbone(detector.backbone)(images))
  model = keras.Model(images, _head(detector.heads)(features), name=name)
  return cost_model(model, COCO_SHAPE, PRODUCTS)


def batch_norm_beyond_backbone(cost: ModelCost) -> int:
  """Returns the parameters of the batch norm in pyramid and head.

  The paper names none there; RetinaNet as published has none, Model Garden's has it.
  """
  return sum(
    layer.parameters
    for layer in cost.layers
    if layer.type == "BatchNormalization" and not layer.name.startswith("backbone/")
  )
