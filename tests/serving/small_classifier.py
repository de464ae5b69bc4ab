"""A small attention classifier whose random weights separate images, for export."""

import numpy as np
import tf_keras
from official.core import exp_factory

from sasa_tf import registry_imports  # noqa: F401
from sasa_tf.serving.modules.classification_module import ClassificationModule

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
  *_, kernel = [weight for weight in module.model.weights if "kernel" in weight.name]
  kernel.assign(random.normal(0, 3 / kernel.shape[0] ** 0.5, kernel.shape))
  return module
