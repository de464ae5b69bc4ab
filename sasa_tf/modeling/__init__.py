"""Models composed of the layers, with the spatial operation of a block as an argument."""

from sasa_tf.modeling.baselines import BaselineLayers
from sasa_tf.modeling.classifier import SASAResNetClassifierBase
from sasa_tf.modeling.fpn import SASAFPNBase
from sasa_tf.modeling.resnet import SASAResNetBase
from sasa_tf.modeling.retinanet_head import RetinaNetHeadBase

__all__ = [
  "BaselineLayers",
  "RetinaNetHeadBase",
  "SASAFPNBase",
  "SASAResNetBase",
  "SASAResNetClassifierBase",
]
