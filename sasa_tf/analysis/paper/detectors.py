"""The detectors of the paper's Table 2: RetinaNet up to its predictions."""

from __future__ import annotations

import functools

import keras

from sasa_tf.analysis.cost import Convention, ModelCost, cost_model
from sasa_tf.analysis.paper.tables import DETECTORS, MODELS
from sasa_tf.keras import SASAFPN, RetinaNetHead, SASAResNet

COCO_SHAPE = (640, 640, 3)
# The ids of COCO's 80 categories go up to 90. The conv baseline only matches the paper with these
# two numbers.
COCO_CLASSES = 90
COCO_ANCHORS = 6

# The convention with which the conv baseline of Table 2 and the savings match the printed numbers:
# only the products and the softmax of the convention `paper`.
PRODUCTS = Convention(
  "products",
  "2 per multiply-add, logits as q.(k + r), 8 per logit for the softmax; nothing else",
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
  specs = _backbone("resnet50").output_specs  # equal for every ResNet-50
  return SASAFPN(specs, spatial=spatial, kernel_initializer="zeros", name="pyramid")


@functools.cache
def _head(spatial: str) -> keras.Model:
  specs = _pyramid("conv").output_specs
  return RetinaNetHead(specs, COCO_CLASSES, COCO_ANCHORS, spatial=spatial, name="head")


@functools.cache
def paper_detector_cost(name: str) -> ModelCost:
  """Returns the cost of a detector of the paper's Table 2 at 640 pixels, in `PRODUCTS`.

  It includes everything from the image to the class logits and boxes of every anchor.

  Args:
    name: key of `tables.DETECTORS`.
  """
  detector = DETECTORS[name]
  images = keras.Input(COCO_SHAPE)
  features = _pyramid(detector.pyramid)(_backbone(detector.backbone)(images))
  model = keras.Model(images, _head(detector.heads)(features), name=name)
  return cost_model(model, COCO_SHAPE, PRODUCTS)


def batch_norm_beyond_backbone(cost: ModelCost) -> int:
  """Returns the number of batch norm parameters in pyramid and head.

  The paper does not mention batch norm there. The published RetinaNet has none; Model Garden's has.
  """
  return sum(
    layer.parameters
    for layer in cost.layers
    if layer.type == "BatchNormalization" and not layer.name.startswith("backbone/")
  )
