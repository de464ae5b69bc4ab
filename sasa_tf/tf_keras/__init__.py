"""Layers and models for tf_keras (Keras 2), which TF Model Garden uses."""

from sasa_tf import extras

extras.require(__name__, "tf_keras")

import tf_keras

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

_register = tf_keras.saving.register_keras_serializable("sasa_tf")

mark_exports(tf_keras)
warn_about_quantization(tf_keras)


@_register
class LocalSelfAttention2D(LocalSelfAttention2DBase, tf_keras.layers.Layer):
  __doc__ = LocalSelfAttention2DBase.__doc__
  _keras = tf_keras


@_register
class SqueezeExcitation2D(SqueezeExcitation2DBase, tf_keras.layers.Layer):
  __doc__ = SqueezeExcitation2DBase.__doc__
  _keras = tf_keras


@_register
class NonLocal2D(NonLocal2DBase, tf_keras.layers.Layer):
  __doc__ = NonLocal2DBase.__doc__
  _keras = tf_keras


@_register
class AttentionAugmentedConv2D(AttentionAugmentedConv2DBase, tf_keras.layers.Layer):
  __doc__ = AttentionAugmentedConv2DBase.__doc__
  _keras = tf_keras


@_register
class AttentionStem(AttentionStemBase, tf_keras.layers.Layer):
  __doc__ = AttentionStemBase.__doc__
  _keras = tf_keras


@_register
class StemPooling2D(StemPooling2DBase, tf_keras.layers.MaxPooling2D):
  __doc__ = StemPooling2DBase.__doc__
  _keras = tf_keras


@_register
class SASAResNet(SASAResNetBase, tf_keras.Model):
  __doc__ = SASAResNetBase.__doc__
  _keras = tf_keras
  _attention = LocalSelfAttention2D
  _baselines = BaselineLayers(SqueezeExcitation2D, NonLocal2D, AttentionAugmentedConv2D)
  _attention_stem = AttentionStem
  _stem_pooling = StemPooling2D


@_register
class SASAResNetClassifier(SASAResNetClassifierBase, tf_keras.Model):
  __doc__ = SASAResNetClassifierBase.__doc__
  _keras = tf_keras
  _backbone = SASAResNet


@_register
class UpsampleAdd2D(UpsampleAdd2DBase, tf_keras.layers.Layer):
  __doc__ = UpsampleAdd2DBase.__doc__
  _keras = tf_keras


@_register
class SASAFPN(SASAFPNBase, tf_keras.Model):
  __doc__ = SASAFPNBase.__doc__
  _keras = tf_keras
  _attention = LocalSelfAttention2D
  _upsample_add = UpsampleAdd2D


@_register
class RetinaNetHead(RetinaNetHeadBase, tf_keras.Model):
  __doc__ = RetinaNetHeadBase.__doc__
  _keras = tf_keras
  _attention = LocalSelfAttention2D
