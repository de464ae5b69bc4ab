"""Model Garden's classification, guarded against labels that no class has."""

from __future__ import annotations

import tensorflow as tf
from official.core import config_definitions, task_factory
from official.vision.tasks import image_classification

from sasa_tf.configs.image_classification import ImageClassificationTask as Config
from sasa_tf.tasks.labels import LABEL_ERROR


@task_factory.register_task_cls(Config)
class ImageClassificationTask(image_classification.ImageClassificationTask):
  """As Model Garden's, except that a label outside of the classes is an error.

  The stock task turns such a label into an all-zero target, which trains on nothing and lowers the
  reported accuracy without a word.
  """

  def build_inputs(
    self,
    params: config_definitions.DataConfig,
    input_context: tf.distribute.InputContext | None = None,
  ) -> tf.data.Dataset:
    """Builds the dataset of (images [B, H, W, 3], labels [B])."""
    dataset = super().build_inputs(params, input_context)
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
