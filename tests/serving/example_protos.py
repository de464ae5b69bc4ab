"""Serialized `tf.train.Example`s of encoded images."""

import tensorflow as tf


def image_example(content, key="image/encoded"):
  """Returns a serialized example with one feature, the bytes of an encoded image."""
  feature = tf.train.Feature(bytes_list=tf.train.BytesList(value=[content]))
  features = tf.train.Features(feature={key: feature})
  return tf.train.Example(features=features).SerializeToString()
