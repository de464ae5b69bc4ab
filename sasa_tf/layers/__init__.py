"""Base classes of the layers, which `sasa_tf.keras` and `sasa_tf.tf_keras` bind to their Keras."""

from sasa_tf.layers.attention_augmented import AttentionAugmentedConv2DBase
from sasa_tf.layers.attention_stem import AttentionStemBase
from sasa_tf.layers.keras_export import mark_exports
from sasa_tf.layers.keras_mixin import KerasMixin
from sasa_tf.layers.keras_quantization import warn_about_quantization
from sasa_tf.layers.local_self_attention import LocalSelfAttention2DBase
from sasa_tf.layers.non_local import NonLocal2DBase
from sasa_tf.layers.squeeze_excitation import SqueezeExcitation2DBase
from sasa_tf.layers.stem_pooling import StemPooling2DBase, pooling_within_stem
from sasa_tf.layers.upsample_add import UpsampleAdd2DBase

__all__ = [
  "AttentionAugmentedConv2DBase",
  "AttentionStemBase",
  "KerasMixin",
  "LocalSelfAttention2DBase",
  "NonLocal2DBase",
  "SqueezeExcitation2DBase",
  "StemPooling2DBase",
  "UpsampleAdd2DBase",
  "mark_exports",
  "pooling_within_stem",
  "warn_about_quantization",
]
