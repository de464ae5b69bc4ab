"""Layers and models for tf_keras, the Keras of TF Model Garden."""

import tf_keras

from sasa_tf.layers import LocalSelfAttention2DBase
from sasa_tf.modeling import SASAResNetBase

__all__ = ["LocalSelfAttention2D", "SASAResNet"]

_register = tf_keras.saving.register_keras_serializable("sasa_tf")


@_register
class LocalSelfAttention2D(LocalSelfAttention2DBase, tf_keras.layers.Layer):
  __doc__ = LocalSelfAttention2DBase.__doc__
  _keras = tf_keras


@_register
class SASAResNet(SASAResNetBase, tf_keras.Model):
  __doc__ = SASAResNetBase.__doc__
  _keras = tf_keras
  _attention = LocalSelfAttention2D
