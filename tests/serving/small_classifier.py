"""A small attention classifier whose random weights separate images, for export."""

import numpy as np
import tensorflow as tf
import tf_keras
from official.core import exp_factory

from sasa_tf import registry_imports  # noqa: F401
from sasa_tf.serving.modules.classification_module import ClassificationModule
from tests.serving.small_detector import random_images

NAMES = tuple(f"class {label}" for label in range(10))
SIZE = 32  # of the model's input


def params_of(**backbone):
  """Returns an experiment with ResNet-26 of a quarter of the width.

  Args:
    **backbone: changes of the backbone's configuration.
  """
  params = exp_factory.get_exp_config("sasa_resnet_cifar10")
  params.task.model.override(
    {
      "input_size": [SIZE, SIZE, 3],
      "backbone": {"sasa_resnet": {"width_multiplier": 0.25, **backbone}},
    }
  )
  return params


def build_module(params, *, batch_size=None, seed=1):
  """Returns an export module whose probabilities depend on the image."""
  tf_keras.utils.set_random_seed(seed)
  module = ClassificationModule(
    params, batch_size=batch_size, input_image_size=[SIZE, SIZE], input_type="image_tensor"
  )
  random = np.random.default_rng(seed)
  for weight in module.model.weights:
    if "gamma" in weight.name:  # zero in the last normalization of a block
      weight.assign(random.uniform(0.5, 1, weight.shape))
  kernel, bias = module.model.layers[-1].weights
  kernel.assign(random.normal(size=kernel.shape))
  # Logits of several images have a mean of 0 and a standard deviation of 3.
  images = tf.cast(tf.stack(random_images([(SIZE, SIZE)] * 4)), tf.float32)
  logits = module.serve_prepared(images)["logits"]
  centered = logits - tf.reduce_mean(logits, axis=0)
  scale = 3 / tf.math.reduce_std(centered)
  kernel.assign(kernel * scale)
  bias.assign(-scale * tf.reduce_mean(logits, axis=0))
  return module
