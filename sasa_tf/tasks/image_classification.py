"""Image classification: Model Garden's task with validated labels."""

from __future__ import annotations

from typing import Any

import tensorflow as tf
import tf_keras
from official.core import config_definitions, task_factory
from official.vision.tasks import image_classification

from sasa_tf.compat.model_garden import replaced_normalization, uncompressed_data_service
from sasa_tf.configs.image_classification import ImageClassificationTask as Config
from sasa_tf.modeling.builders.build_errors import model_errors
from sasa_tf.tasks import tfds_decoders
from sasa_tf.tasks.batch_inputs import build_batch_inputs
from sasa_tf.tasks.init_checkpoint import restore_init_checkpoint
from sasa_tf.tasks.label_errors import LABEL_ERROR
from sasa_tf.tasks.normalization import normalize_image
from sasa_tf.tasks.pad_crop import random_pad_crop

tfds_decoders.register()


@task_factory.register_task_cls(Config)
class ImageClassificationTask(image_classification.ImageClassificationTask):
  """Model Garden's task, with these differences.

  * A label outside of the model's classes is an error. The stock task turns it into an all-zero
    target, which silently trains on nothing and lowers the reported accuracy.
  * `train_data.pad_crop`: random crops of images with a reflected border, after Model Garden's
    augmentation.
  * `train_data.batch_augmentation`: the augmentation of whole batches.
  * Images of TFDS are decoded once. The stock task decodes, encodes and decodes them.
  * An incompatible `init_checkpoint` is a `UserError` that says what does not fit.
  * The validation loss is the mean over images. That of the stock task is the mean over batches,
    including the smaller and empty ones that replicas get at the end.
  * An invalid configuration of the model is a `ConfigError`.
  """

  def build_model(self) -> tf_keras.Model:
    """Builds Model Garden's `ClassificationModel`.

    Raises:
      ConfigError: the configuration of the model is invalid. The message names its keys.
    """
    with model_errors(self.task_config.model):
      return super().build_model()

  def initialize(self, model: tf_keras.Model) -> None:
    """Restores `init_checkpoint` into the parts of `init_checkpoint_modules`.

    Raises:
      UserError: there is no such checkpoint, or it does not fit this model.
    """
    config = self.task_config
    if config.init_checkpoint:
      restore_init_checkpoint(
        config.init_checkpoint,
        config.init_checkpoint_modules,
        {"backbone": model.backbone},
        {"model": model},
      )

  def build_inputs(
    self,
    params: config_definitions.DataConfig,
    input_context: tf.distribute.InputContext | None = None,
  ) -> tf.data.Dataset:
    """Builds the dataset of (images [B, H, W, 3], labels [B])."""
    data = tfds_decoders.pass_through(params)
    with uncompressed_data_service(), replaced_normalization(normalize_image):
      if params.is_training and params.batch_augmentation:
        dataset = build_batch_inputs(self.task_config, data, input_context)
      else:
        dataset = super().build_inputs(data, input_context)
    classes = self.task_config.model.num_classes
    pad_crop = params.pad_crop if params.is_training else 0

    def crop(images, labels):
      return random_pad_crop(images, pad_crop), labels

    def check_labels(images, labels):
      if labels.dtype.is_integer and not self.task_config.train_data.is_multilabel:
        message = f"{LABEL_ERROR}: expected 0 to {classes - 1}"
        with tf.control_dependencies(
          [
            tf.debugging.assert_non_negative(labels, message=message),
            tf.debugging.assert_less(labels, classes, message=message),
          ]
        ):
          labels = tf.identity(labels)
      return images, labels

    if pad_crop:
      dataset = dataset.map(crop, num_parallel_calls=tf.data.AUTOTUNE)
    return dataset.map(check_labels, num_parallel_calls=tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)

  def validation_step(
    self, inputs: tuple[Any, Any], model: tf_keras.Model, metrics: list[Any] | None = None
  ) -> dict[str, tf.Tensor]:
    """Returns {"loss": the mean loss of the batch, repeated for each image [B]}."""
    logs = super().validation_step(inputs, model, metrics)
    images, _ = inputs
    logs[self.loss] = tf.fill(tf.shape(images)[:1], logs[self.loss])
    return logs
