"""Random crops with a reflected border."""

import numpy as np
import pytest
import tensorflow as tf

from sasa_tf.tasks.pad_crop import random_pad_crop


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_each_image_is_a_crop_of_its_padded_self(dtype):
  tf.random.set_seed(1)
  height, width, padding = 5, 7, 2
  images = np.random.default_rng(0).integers(0, 100, [16, height, width, 3])
  crops = random_pad_crop(tf.constant(images, dtype), padding)
  assert crops.shape == images.shape and crops.dtype == dtype
  crops = tf.cast(crops, "float32").numpy()
  border = [(padding, padding), (padding, padding), (0, 0)]
  found = set()
  for image, crop in zip(images, crops, strict=True):
    padded = np.pad(image, border, "reflect")
    places = [
      (y, x)
      for y in range(2 * padding + 1)
      for x in range(2 * padding + 1)
      if np.array_equal(padded[y : y + height, x : x + width], crop)
    ]
    assert len(places) == 1
    found.add(places[0])
  assert len(found) > 8


def test_unknown_batch_size():
  signature = [tf.TensorSpec([None, 4, 4, 3])]
  function = tf.function(lambda images: random_pad_crop(images, 1), input_signature=signature)
  assert function(tf.zeros([3, 4, 4, 3])).shape == (3, 4, 4, 3)
