"""Training images that are decoded one by one, and augmented in batches."""

from __future__ import annotations

from typing import Any

import tensorflow as tf
from official.common import dataset_fn
from official.vision.dataloaders import (
  classification_input,
  input_reader,
  input_reader_factory,
  tfds_factory,
)
from official.vision.ops import augment, preprocess_ops

from sasa_tf.configs.image_classification import DataConfig
from sasa_tf.configs.image_classification import ImageClassificationTask as TaskConfig
from sasa_tf.tasks.batch_color_jitter import random_color_jitter
from sasa_tf.tasks.batch_erasing import random_erasing
from sasa_tf.tasks.batch_flip import random_flip
from sasa_tf.tasks.normalization import normalize_image


class DecodingParser(classification_input.Parser):
  """Model Garden's parser without augmentation: images stay uint8."""

  def _parse_train_image(self, decoded_tensors: dict[str, tf.Tensor]) -> tf.Tensor:
    image = decoded_tensors[self._image_field_key]
    if image.dtype == tf.string:
      image = tf.io.decode_image(image, channels=3, expand_animations=False)
    expected = [*self._output_size, 3]
    same_size = tf.debugging.assert_equal(
      tf.shape(image),
      expected,
      message=f"train_data.batch_augmentation: expected images of {expected[0]} x {expected[1]} "
      "pixels, the size of task.model.input_size. Resize the images, or set it to false",
    )
    with tf.control_dependencies([same_size]):
      return tf.reshape(image, expected)


def build_batch_inputs(
  config: TaskConfig,
  params: DataConfig,
  input_context: tf.distribute.InputContext | None = None,
) -> tf.data.Dataset:
  """Builds the dataset of augmented (images [B, H, W, 3], labels) of a training.

  The augmentation is that of Model Garden's parser, in the same order and with the same
  distribution. With `params.cache`, the decoded images are cached, before their augmentation.

  Args:
    config: of the task.
    params: of its training data.
    input_context: of the replicas.
  """
  data = config.train_data
  decoder = (
    tfds_factory.get_classification_decoder(params.tfds_name)
    if params.tfds_name
    else classification_input.Decoder(
      image_field_key=data.image_field_key,
      label_field_key=data.label_field_key,
      is_multilabel=data.is_multilabel,
    )
  )
  parser = DecodingParser(
    output_size=config.model.input_size[:2],
    num_classes=config.model.num_classes,
    image_field_key=data.image_field_key,
    label_field_key=data.label_field_key,
    is_multilabel=data.is_multilabel,
  )
  mix = None
  if params.mixup_and_cutmix:
    mix = augment.MixupAndCutmix(
      mixup_alpha=params.mixup_and_cutmix.mixup_alpha,
      cutmix_alpha=params.mixup_and_cutmix.cutmix_alpha,
      prob=params.mixup_and_cutmix.prob,
      label_smoothing=params.mixup_and_cutmix.label_smoothing,
      num_classes=config.model.num_classes,
    )

  def augment_batch(images: tf.Tensor, labels: tf.Tensor) -> tuple[Any, Any]:
    images = augment_images(images, params)
    return (images, labels) if mix is None else mix(images, labels)

  reader = input_reader_factory.input_reader_generator(
    params,
    dataset_fn=dataset_fn.pick_dataset_fn(params.file_type),
    decoder_fn=decoder.decode,
    combine_fn=input_reader.create_combine_fn(params),
    parser_fn=parser.parse_fn(is_training=True),
    postprocess_fn=augment_batch,
  )
  return reader.read(input_context=input_context)


def augment_images(images: tf.Tensor, params: DataConfig) -> tf.Tensor:
  """Returns augmented and normalized images.

  Args:
    images: [B, H, W, 3] uint8.
    params: of the training data.

  Returns:
    [B, H, W, 3] of `params.dtype`.
  """
  if params.aug_rand_hflip:
    images = random_flip(images)
  if params.color_jitter > 0:
    images = random_color_jitter(images, params.color_jitter)
  images = normalize_image(
    tf.cast(images, tf.float32), preprocess_ops.MEAN_RGB, preprocess_ops.STDDEV_RGB
  )
  if params.random_erasing is not None:
    images = random_erasing(images, params.random_erasing)
  return tf.image.convert_image_dtype(images, params.dtype)
