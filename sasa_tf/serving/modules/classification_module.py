"""Export module of classifiers: images in, probabilities out, preprocessed as in the evaluation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf
from official.vision.dataloaders import classification_input
from official.vision.serving import image_classification

from sasa_tf.data.images.orientation import decode_upright
from sasa_tf.serving.modules.normalization import normalize


class ClassificationModule(image_classification.ClassificationModule):
  """Model Garden's module, with the preprocessing of the evaluation.

  The stock module crops differently and rounds encoded images to integers after resizing, so its
  probabilities differ from those of the evaluation.

  The signatures take `image_tensor` uint8 [B, H, W, 3], `image_bytes` strings [B] or `tf_example`
  strings [B]; the encoded images have any size and are decoded as `decode_upright` does. They
  return `logits` and `probs` [B, classes].
  """

  def __init__(self, params: Any, **kwargs: Any):
    """Takes Model Garden's `ExportModule` arguments."""
    super().__init__(params=params, **kwargs)
    data = params.task.validation_data
    self._image_key = params.task.train_data.image_field_key
    self._label_key = params.task.train_data.label_field_key
    self._parse = classification_input.Parser(
      output_size=self._input_image_size,
      num_classes=params.task.model.num_classes,
      image_field_key=self._image_key,
      label_field_key=self._label_key,
      aug_crop=data.aug_crop,
      is_multilabel=False,
      center_crop_fraction=data.center_crop_fraction,
      tf_resize_method=data.tf_resize_method,
    ).parse_fn(is_training=False)

  def prepare(self, image: tf.Tensor) -> tf.Tensor:
    """Maps an image uint8 [H, W, 3] of any size to the model's input float32 [H, W, 3]."""
    prepared, _ = self._parse({self._image_key: image, self._label_key: 0})
    return prepared

  def _classify(self, images: tf.Tensor) -> Mapping[str, tf.Tensor]:
    logits = self.inference_step(images)
    multilabel = self.params.task.train_data.is_multilabel
    probs = tf.math.sigmoid(logits) if multilabel else tf.nn.softmax(logits)
    return {"logits": logits, "probs": probs}

  def _serve_each(
    self, inputs: tf.Tensor, decode: Callable[[tf.Tensor], tf.Tensor]
  ) -> Mapping[str, tf.Tensor]:
    # Decoding and resizing have no GPU kernels.
    with tf.device("cpu:0"):
      images = tf.map_fn(
        lambda each: self.prepare(decode(each)),
        inputs,
        fn_output_signature=tf.TensorSpec([*self._input_image_size, 3], tf.float32),
        parallel_iterations=32,
      )
    return self._classify(images)

  @property
  def prepared_size(self) -> list[int]:
    """(H, W) of the model's input."""
    return list(self._input_image_size)

  def serve_prepared(self, images: tf.Tensor) -> Mapping[str, tf.Tensor]:
    """Classifies images of the model's input size, float32 [B, H, W, 3], values from 0 to 255."""
    return self._classify(normalize(images))

  def serve(self, images: tf.Tensor) -> Mapping[str, tf.Tensor]:
    """Classifies decoded images."""
    return self._serve_each(images, tf.identity)

  @tf.function
  def inference_from_image_bytes(self, inputs: tf.Tensor) -> Mapping[str, tf.Tensor]:
    """Classifies encoded images: strings [B], see `decode_upright`."""
    return self._serve_each(inputs, decode_upright)

  @tf.function
  def inference_from_tf_example(self, inputs: tf.Tensor) -> Mapping[str, tf.Tensor]:
    """Classifies serialized `tf.train.Example`s: strings [B]."""
    features = {self._image_key: tf.io.FixedLenFeature([], tf.string)}
    encoded = tf.io.parse_example(inputs, features)[self._image_key]
    return self._serve_each(encoded, decode_upright)
