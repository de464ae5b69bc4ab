"""Warm-up requests of a SavedModel, which TensorFlow Serving runs before it serves a version.

The first request of a signature takes seconds, because TensorFlow optimizes its graph.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

import tensorflow as tf

from sasa_tf.serving.tensorflow_serving import prediction_log

_GRAY = 127


def write_warmup_requests(
  path: str | os.PathLike,
  signatures: Mapping[str, tf.types.experimental.ConcreteFunction],
  *,
  image_size: Sequence[int],
  image_key: str,
  requests: int = 1,
) -> None:
  """Writes requests with gray images for each signature.

  Args:
    path: file to create.
    signatures: signatures of the model by name, each with one input.
    image_size: (H, W) of the images, where the signature leaves it open.
    image_key: feature of the encoded image in `tf.train.Example`s.
    requests: number of requests for each signature.
  """
  with tf.io.TFRecordWriter(os.fspath(path)) as writer:
    for name, signature in signatures.items():
      log = _log(name, _input(signature), image_size, image_key)
      for _ in range(requests):
        writer.write(log)


def _input(signature: tf.types.experimental.ConcreteFunction) -> tf.TensorSpec:
  (spec,) = tf.nest.flatten(signature.structured_input_signature)
  return spec


def _log(name: str, spec: tf.TensorSpec, image_size: Sequence[int], image_key: str) -> bytes:
  batch = spec.shape[0] or 1
  if spec.dtype != tf.string:
    sizes = (batch, *image_size, spec.shape[3])
    shape = [size or known for size, known in zip(spec.shape, sizes, strict=True)]
    tensor = tf.make_tensor_proto(_GRAY, spec.dtype, shape)  # one value for all elements
    return prediction_log.predict_log(name, {spec.name: tensor.SerializeToString()})
  encoded = tf.io.encode_jpeg(tf.fill([*image_size, 3], tf.constant(_GRAY, tf.uint8))).numpy()
  if spec.name != "image_bytes":
    encoded = _example(image_key, encoded)
  if spec.name == tf.saved_model.CLASSIFY_INPUTS:
    return prediction_log.classify_log(name, [encoded] * batch)
  tensor = tf.make_tensor_proto([encoded] * batch)
  return prediction_log.predict_log(name, {spec.name: tensor.SerializeToString()})


def _example(key: str, content: bytes) -> bytes:
  feature = tf.train.Feature(bytes_list=tf.train.BytesList(value=[content]))
  features = tf.train.Features(feature={key: feature})
  return tf.train.Example(features=features).SerializeToString()
