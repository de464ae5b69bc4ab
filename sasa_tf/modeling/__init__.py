"""Models composed from the layers; they take the spatial operation of a block as an argument."""

from sasa_tf.modeling.baselines import BaselineLayers
from sasa_tf.modeling.resnet import SASAResNetBase

__all__ = ["BaselineLayers", "SASAResNetBase"]
