"""Exported models preprocess batches as the evaluation does each image, bit for bit."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from official.core import exp_factory
from official.vision.dataloaders import classification_input
from official.vision.ops import preprocess_ops

from sasa_tf import registry_imports  # noqa: F401
from sasa_tf.serving.modules.classification_module import ClassificationModule
from sasa_tf.serving.modules.detection_module import DetectionModule
from tests.serving.small_detector import params_of, random_images

SIZE = (24, 32)
# (H, W): equal to the model's input, smaller, larger, wide, tall.
SIZES = (SIZE, (9, 7), (50, 61), (20, 100), (90, 31))


def classifier(**validation_data):
  params = exp_factory.get_exp_config("sasa_resnet_cifar10")
  params.task.validation_data.override(validation_data)
  model = tf_keras.Sequential([tf_keras.layers.GlobalAveragePooling2D()])
  return ClassificationModule(params, batch_size=None, input_image_size=[*SIZE], model=model)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
  "changes",
  [
    {},
    {"aug_crop": False},
    {"center_crop_fraction": 0.7},
    {"tf_resize_method": "bicubic"},
    {"tf_resize_method": "nearest"},
  ],
  ids=str,
)
def test_classifiers(size, changes):
  module = classifier(**changes)
  data = module.params.task.validation_data
  parse = classification_input.Parser(
    output_size=[*SIZE],
    num_classes=10,
    aug_crop=data.aug_crop,
    center_crop_fraction=data.center_crop_fraction,
    tf_resize_method=data.tf_resize_method,
  ).parse_fn(is_training=False)
  images = np.stack(random_images([size] * 3))
  expected = [
    parse({"image/encoded": tf.constant(image), "image/class/label": 0})[0] for image in images
  ]
  np.testing.assert_array_equal(module.prepare(tf.constant(images)), expected)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("keep_aspect_ratio", [True, False])
def test_detectors(size, keep_aspect_ratio):
  params = params_of()
  params.task.validation_data.parser.keep_aspect_ratio = keep_aspect_ratio
  module = DetectionModule(
    params, batch_size=None, input_image_size=[*SIZE], model=tf_keras.Sequential()
  )
  images = np.stack(random_images([size] * 3))
  prepared, scales, sizes = module.prepare(tf.constant(images))
  for i, image in enumerate(images):
    normalized = preprocess_ops.normalize_image(tf.cast(image, tf.float32), *_MEAN_AND_STDDEV)
    expected, info = preprocess_ops.resize_and_crop_image(
      normalized, [*SIZE], module.prepared_size, keep_aspect_ratio=keep_aspect_ratio
    )
    # The evaluation normalizes before it resizes.
    np.testing.assert_allclose(prepared[i], expected, atol=1e-5)
    np.testing.assert_array_equal(sizes[i], info[0])
    np.testing.assert_array_equal(scales[i], info[2])


_MEAN_AND_STDDEV = (preprocess_ops.MEAN_RGB, preprocess_ops.STDDEV_RGB)
