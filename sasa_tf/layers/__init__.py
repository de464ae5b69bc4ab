"""Layers without a Keras: the logic that `sasa_tf.keras` and `sasa_tf.tf_keras` bind to theirs."""

from sasa_tf.layers.flavour import KerasBound
from sasa_tf.layers.local_self_attention import LocalSelfAttention2DBase

__all__ = ["KerasBound", "LocalSelfAttention2DBase"]
