"""Layers and models for Keras 3 (`import keras`) with the TensorFlow backend."""

from sasa_tf import extras

extras.require_tensorflow_backend(__name__)

import keras

from sasa_tf.layers import (
  AttentionAugmentedConv2DBase,
  AttentionStemBase,
  LocalSelfAttention2DBase,
  NonLocal2DBase,
  SqueezeExcitation2DBase,
  StemPooling2DBase,
  UpsampleAdd2DBase,
  mark_exports,
  warn_about_quantization,
)
from sasa_tf.modeling import (
  BaselineLayers,
  RetinaNetHeadBase,
  SASAFPNBase,
  SASAResNetBase,
  SASAResNetClassifierBase,
)

__all__ = [
  "SASAFPN",
  "AttentionAugmentedConv2D",
  "AttentionStem",
  "LocalSelfAttention2D",
  "NonLocal2D",
  "RetinaNetHead",
  "SASAResNet",
  "SASAResNetClassifier",
  "SqueezeExcitation2D",
  "UpsampleAdd2D",
]

_register = keras.saving.register_keras_serializable("sasa_tf")

mark_exports(keras)
warn_about_quantization(keras)


@_register
class LocalSelfAttention2D(LocalSelfAttention2DBase, keras.layers.Layer):
  __doc__ = LocalSelfAttention2DBase.__doc__
  _keras = keras


@_register
class SqueezeExcitation2D(SqueezeExcitation2DBase, keras.layers.Layer):
  __doc__ = SqueezeExcitation2DBase.__doc__
  _keras = keras


@_register
class NonLocal2D(NonLocal2DBase, keras.layers.Layer):
  __doc__ = NonLocal2DBase.__doc__
  _keras = keras


@_register
class AttentionAugmentedConv2D(AttentionAugmentedConv2DBase, keras.layers.Layer):
  __doc__ = AttentionAugmentedConv2DBase.__doc__
  _keras = keras


@_register
class AttentionStem(AttentionStemBase, keras.layers.Layer):
  __doc__ = AttentionStemBase.__doc__
  _keras = keras


@_register
class StemPooling2D(StemPooling2DBase, keras.layers.MaxPooling2D):
  __doc__ = StemPooling2DBase.__doc__
  _keras = keras


@_register
class SASAResNet(SASAResNetBase, keras.Model):
  __doc__ = SASAResNetBase.__doc__
  _keras = keras
  _attention = LocalSelfAttention2D
  _baselines = BaselineLayers(SqueezeExcitation2D, NonLocal2D, AttentionAugmentedConv2D)
  _attention_stem = AttentionStem
  _stem_pooling = StemPooling2D


@_register
class SASAResNetClassifier(SASAResNetClassifierBase, keras.Model):
  __doc__ = SASAResNetClassifierBase.__doc__
  _keras = keras
  _backbone = SASAResNet


@_register
class UpsampleAdd2D(UpsampleAdd2DBase, keras.layers.Layer):
  __doc__ = UpsampleAdd2DBase.__doc__
  _keras = keras


@_register
class SASAFPN(SASAFPNBase, keras.Model):
  __doc__ = SASAFPNBase.__doc__
  _keras = keras
  _attention = LocalSelfAttention2D
  _upsample_add = UpsampleAdd2D


@_register
class RetinaNetHead(RetinaNetHeadBase, keras.Model):
  __doc__ = RetinaNetHeadBase.__doc__
  _keras = keras
  _attention = LocalSelfAttention2D
