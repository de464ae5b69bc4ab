"""A small attention detector whose random weights produce detections, and images for it."""

import numpy as np
import tensorflow as tf
import tf_keras
from official.core import exp_factory, task_factory

from sasa_tf import registry_imports  # noqa: F401

NAMES = ("background", "ant", "bee", "cat")
SIZE = 64  # of the model's input

WINDOW = {"kernel_size": 3, "num_heads": 4}
SMALL = {
  "num_classes": len(NAMES),
  "input_size": [SIZE, SIZE, 3],
  "max_level": 4,
  "backbone": {"sasa_resnet": {"width_multiplier": 0.0625, "attention_groups": [4]}},
  "decoder": {"sasa_fpn": {"num_filters": 8, "spatial": "attention", **WINDOW}},
  "head": {"num_filters": 8, "num_convs": 0, "spatial": "attention", **WINDOW},
  "anchor": {"num_scales": 1},
  "norm_activation": {"use_sync_bn": False},
}


def params_of(records="", **model):
  """Returns an experiment with the small detector and the given changes of the model."""
  params = exp_factory.get_exp_config("retinanet_sasa_scenes")
  params.task.validation_data.input_path = str(records)
  params.task.model.override(SMALL)
  params.task.model.override(model)
  return params


def build(params, seed=1):
  """Returns the task and a model that produces boxes with a wide range of scores."""
  tf_keras.utils.set_random_seed(seed)
  task = task_factory.get_task(params.task)
  model = task.build_model()
  random = np.random.default_rng(seed)
  for weight in model.head.trainable_weights:
    if "kernel" in weight.name:  # nearly zero in an untrained head
      weight.assign(random.normal(0, 0.7 / weight.shape[-2] ** 0.5, weight.shape))
  images = tf.cast(tf.stack(random_images([(SIZE, SIZE)] * 2)), tf.float32) / 58 - 2
  logits, *_ = model.head(model.decoder(model.backbone(images)))
  spread = tf.math.reduce_std(tf.reshape(logits["3"], [-1, len(NAMES)])[:, 1:])
  (kernel,) = [w for w in model.head.weights if w.name.startswith("classes_predictor/kernel")]
  kernel.assign(kernel * 3 / spread)
  return task, model


def random_images(sizes, seed=0):
  """Returns smooth color noise, uint8 [H, W, 3] for each size."""
  random = np.random.default_rng(seed)
  coarse = [random.uniform(0, 255, [6, 6, 3]) for _ in sizes]
  return [
    tf.cast(tf.image.resize(noise, size, "bicubic"), tf.int32).numpy().clip(0, 255).astype(np.uint8)
    for noise, size in zip(coarse, sizes, strict=True)
  ]
