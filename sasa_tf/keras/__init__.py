"""Layers and models for Keras 3 (`import keras`) on its TensorFlow backend."""

import keras

if keras.backend.backend() != "tensorflow":
  raise ImportError(
    "sasa_tf.keras needs Keras 3 on its TensorFlow backend; received backend "
    f"{keras.backend.backend()!r}. Set KERAS_BACKEND=tensorflow before importing keras."
  )

from sasa_tf.layers import LocalSelfAttention2DBase
from sasa_tf.modeling import SASAResNetBase

__all__ = ["LocalSelfAttention2D", "SASAResNet"]

_register = keras.saving.register_keras_serializable("sasa_tf")


@_register
class LocalSelfAttention2D(LocalSelfAttention2DBase, keras.layers.Layer):
  __doc__ = LocalSelfAttention2DBase.__doc__
  _keras = keras


@_register
class SASAResNet(SASAResNetBase, keras.Model):
  __doc__ = SASAResNetBase.__doc__
  _keras = keras
  _attention = LocalSelfAttention2D
