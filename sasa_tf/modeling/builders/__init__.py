"""Builders for Model Garden, which convert configuration objects to constructor arguments."""

from sasa_tf import extras

extras.require(__name__, "official", "tf_keras")

from sasa_tf.modeling.builders.backbones import build_sasa_resnet
from sasa_tf.modeling.builders.decoders import build_sasa_fpn
from sasa_tf.modeling.builders.retinanet import build_retinanet

__all__ = ["build_retinanet", "build_sasa_fpn", "build_sasa_resnet"]
