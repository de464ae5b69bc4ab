"""Model Garden's classification, guarded against labels that no class has."""

from __future__ import annotations

from typing import Any

import tensorflow as tf
import tf_keras
from official.core import config_definitions, task_factory
from official.vision.tasks import image_classification

from sasa_tf.configs.image_classification import ImageClassificationTask as Config
from sasa_tf.tasks import tfds_decoders
from sasa_tf.tasks.label_errors import LABEL_ERROR

tfds_decoders.register()


@task_factory.register_task_cls(Config)
class ImageClassificationTask(image_classification.ImageClassificationTask):
  """As Model Garden's, with these differences.

  * A label outside of the classes is an error. The stock task turns it into an all-zero target,
    which trains on nothing and lowers the reported accuracy without a word.
  * Images of TFDS are decoded once. The stock task decodes, encodes and decodes them.
  * The loss of an evaluation is the mean over images. The stock one is the mean over batches, the
    smaller and empty ones among them that replicas get in the end.
  """

  def build_inputs(
    self,
    params: config_definitions.DataConfig,
    input_context: tf.distribute.InputContext | None = None,
  ) -> tf.data.Dataset:
    """Builds the dataset of (images [B, H, W, 3], labels [B])."""
    dataset = super().build_inputs(tfds_decoders.pass_through(params), input_context)
    classes = self.task_config.model.num_classes

    def checked(images, labels):
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

    return dataset.map(checked, num_parallel_calls=tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)

  def validation_step(
    self, inputs: tuple[Any, Any], model: tf_keras.Model, metrics: list[Any] | None = None
  ) -> dict[str, tf.Tensor]:
    """Returns {"loss": the batch's mean, once for each image of it [B]}."""
    logs = super().validation_step(inputs, model, metrics)
    images, _ = inputs
    logs[self.loss] = tf.fill(tf.shape(images)[:1], logs[self.loss])
    return logs
