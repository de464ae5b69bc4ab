"""A program of a user with type errors, each of which the type checker must report."""

import tensorflow as tf

from sasa_tf import ops
from sasa_tf.keras import LocalSelfAttention2D, SASAResNet

LocalSelfAttention2D("64")  # error: arg-type
LocalSelfAttention2D(64, positions="relativ")  # error: arg-type
LocalSelfAttention2D()  # error: call-arg
SASAResNet(50, stem="convolution")  # error: arg-type


def attend(query: tf.Tensor) -> None:
  ops.local_attention_2d(query, query, query, border="reflect")  # error: arg-type
  ops.local_attention_2d(query, query)  # error: call-arg
