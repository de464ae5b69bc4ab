"""Models composed from the layers; they take the spatial operation of a block as an argument."""

from sasa_tf.modeling.resnet import SASAResNetBase

__all__ = ["SASAResNetBase"]
