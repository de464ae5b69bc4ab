"""A program of a user, which the type checker must accept."""

import keras
import tensorflow as tf

from sasa_tf import ops
from sasa_tf.keras import AttentionStem, LocalSelfAttention2D, SASAResNet


def classifier(num_classes: int) -> keras.Model:
  inputs = keras.Input([32, 32, 3])
  x = AttentionStem(16, num_heads=4, variant="mixture")(inputs)
  x = LocalSelfAttention2D(64, kernel_size=(7, 5), num_heads=8, positions="relative", strides=2)(x)
  x = keras.layers.GlobalAveragePooling2D()(keras.layers.ReLU()(x))
  return keras.Model(inputs, keras.layers.Dense(num_classes)(x))


def backbone() -> keras.Model:
  return SASAResNet(50, stem="attention", attention_groups=(3, 4), border="mask")


def attend(query: tf.Tensor, key: tf.Tensor, value: tf.Tensor) -> tf.Tensor:
  with ops.use_implementation("blocked"):
    return ops.local_attention_2d(query, key, value, kernel_size=7, border="mask")
