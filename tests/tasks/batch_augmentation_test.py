"""Augmentation of batches: that of single images by Model Garden, with the same distribution."""

import itertools
import os

import numpy as np
import pytest
import tensorflow as tf
from official.core import exp_factory, task_factory
from official.vision.ops import augment, preprocess_ops

from sasa_tf.configs.image_classification import RandomErasing
from sasa_tf.tasks import (
  batch_color_jitter,
  batch_erasing,
  batch_flip,
  batch_inputs,
  image_classification,
)

_FACTORS = (0.0, 0.4, 0.9, 1.0, 1.05, 1.7)


def random_images(count, height=12, width=10):
  return np.random.default_rng(0).integers(0, 256, [count, height, width, 3], np.uint8)


def saturation(image, factor):
  gray = tf.repeat(tf.image.rgb_to_grayscale(image), 3, axis=-1)
  return augment.blend(gray, image, factor)


@pytest.mark.parametrize(
  ("of_batch", "of_image", "off_by_one"),
  [
    (batch_color_jitter.adjust_brightness, augment.brightness, 0),
    # Sums of other order: a value next to the next integer can be truncated to the one below.
    (batch_color_jitter.adjust_contrast, augment.contrast, 0.01),
    (batch_color_jitter.adjust_saturation, saturation, 0),
  ],
  ids=["brightness", "contrast", "saturation"],
)
def test_color_adjustments_equal_those_of_single_images(of_batch, of_image, off_by_one):
  images = random_images(len(_FACTORS))
  adjusted = of_batch(tf.constant(images), tf.reshape(tf.constant(_FACTORS), [-1, 1, 1, 1]))
  assert adjusted.dtype == tf.uint8 and adjusted.shape == images.shape
  expected = [
    of_image(tf.constant(image), factor) for image, factor in zip(images, _FACTORS, strict=True)
  ]
  difference = np.abs(adjusted.numpy().astype(int) - np.array(expected).astype(int))
  assert difference.max() <= (1 if off_by_one else 0)
  assert np.mean(difference > 0) <= off_by_one


def test_color_jitter_has_the_distribution_of_single_images():
  tf.random.set_seed(3)
  image = random_images(1)[0]
  images = tf.constant(np.repeat(image[None], 1500, axis=0))
  batch = batch_color_jitter.random_color_jitter(images, 0.3).numpy()
  single = one_by_one(lambda x: preprocess_ops.color_jitter(x, 0.3, 0.3, 0.3), images)
  for statistic in (
    lambda x: x.mean(axis=(1, 2, 3)),  # mostly brightness
    lambda x: x.std(axis=(1, 2, 3)),  # contrast
    lambda x: (x.max(axis=-1) - x.min(axis=-1)).mean(axis=(1, 2)),  # saturation
  ):
    assert largest_difference_of_distributions(statistic(batch), statistic(single)) < 0.07


def one_by_one(augment_image, images):
  """Returns images augmented in a loop."""
  return tf.function(lambda: tf.map_fn(augment_image, images))().numpy()


def largest_difference_of_distributions(first, second):
  """Kolmogorov-Smirnov statistic; equal distributions exceed 0.07 once in 800 draws of 1,500."""
  values = np.sort(np.concatenate([first, second]))
  first, second = (
    np.searchsorted(np.sort(x), values, side="right") / len(x) for x in (first, second)
  )
  return np.abs(first - second).max()


def test_half_of_the_images_are_flipped():
  tf.random.set_seed(0)
  images = random_images(400, 3, 5)
  flipped = batch_flip.random_flip(tf.constant(images)).numpy()
  is_flipped = (flipped == images[:, :, ::-1]).all(axis=(1, 2, 3))
  assert (is_flipped | (flipped == images).all(axis=(1, 2, 3))).all()
  assert 160 < is_flipped.sum() < 240


@pytest.mark.parametrize(
  "config",
  [
    RandomErasing(probability=1.0, min_area=0.1, max_area=0.2, min_aspect=0.5, trials=1),
    RandomErasing(probability=0.6, min_area=0.02, max_area=1 / 3, min_aspect=0.3, trials=10),
    RandomErasing(probability=1.0, min_area=0.7, max_area=0.7, min_aspect=0.2, trials=2),
  ],
  ids=["small", "default", "mostly too large"],
)
def test_erasing_has_the_distribution_of_single_images(config):
  tf.random.set_seed(1)
  count, height, width = 1500, 12, 9
  images = tf.fill([count, height, width, 3], 10.0)
  batch = batch_erasing.random_erasing(images, config).numpy()
  stock = augment.RandomErasing(
    config.probability, config.min_area, config.max_area, config.min_aspect, trials=config.trials
  )
  single = one_by_one(stock.distort, images)
  erased, expected = (x[..., 0] != 10 for x in (batch, single))
  assert (erased[..., None] == (batch != 10)).all()  # all channels
  noise = batch[batch != 10]
  assert abs(noise.mean()) < 0.05 and abs(noise.std() - 1) < 0.05
  for mask in erased[:100]:  # rectangles
    assert mask.sum() == mask.any(axis=0).sum() * mask.any(axis=1).sum()
  frequency = expected.mean(axis=0)
  deviation = np.sqrt(2 * np.maximum(frequency * (1 - frequency), 0.01) / count)
  assert (np.abs(erased.mean(axis=0) - frequency) < 4.5 * deviation).all()
  areas, expected_areas = erased.sum(axis=(1, 2)), expected.sum(axis=(1, 2))
  assert largest_difference_of_distributions(areas, expected_areas) < 0.07


def write_records(path, images):
  """Writes images, labelled 0, 1, ...; returns the path."""
  with tf.io.TFRecordWriter(str(path)) as writer:
    for label, image in enumerate(images):
      encoded = tf.train.BytesList(value=[tf.io.encode_png(image).numpy()])
      features = {
        "image/encoded": tf.train.Feature(bytes_list=encoded),
        "image/class/label": tf.train.Feature(int64_list=tf.train.Int64List(value=[label])),
      }
      example = tf.train.Example(features=tf.train.Features(feature=features))
      writer.write(example.SerializeToString())
  return str(path)


@pytest.fixture
def records(tmp_path):
  return write_records(tmp_path / "train", random_images(6, 32, 32))


def inputs(path, **data):
  params = exp_factory.get_exp_config("sasa_resnet_cifar10")
  assert type(params.task) is image_classification.Config
  params.task.train_data.override(
    {
      "tfds_name": "",
      "input_path": path,
      "global_batch_size": 6,
      "shuffle_buffer_size": 1,
      "aug_rand_hflip": False,
      **data,
    }
  )
  return iter(task_factory.get_task(params.task).build_inputs(params.task.train_data))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_batches_without_random_changes_equal_those_of_single_images(records, dtype):
  expected, expected_labels = next(inputs(records, dtype=dtype))
  images, labels = next(inputs(records, dtype=dtype, batch_augmentation=True))
  assert images.dtype == expected.dtype and images.shape == expected.shape
  np.testing.assert_array_equal(tf.cast(images, tf.float32), tf.cast(expected, tf.float32))
  np.testing.assert_array_equal(labels, expected_labels)


def test_cache_holds_images_before_their_augmentation(records):
  batches = inputs(records, batch_augmentation=True, cache=True, pad_crop=4, color_jitter=0.3)
  first, labels = next(batches)
  os.remove(records)
  later = [next(batches) for _ in range(50)]  # more than the buffers of the pipeline hold
  for _, others in later:
    np.testing.assert_array_equal(others, labels)
  pairs = itertools.pairwise([first, *(images for images, _ in later)])
  changes = [np.abs(one - other).mean(axis=(1, 2, 3)) for one, other in pairs]
  # One of 162 is cropped and flipped as before, and a few of these have similar colors.
  assert np.mean(np.stack(changes) > 0.1) > 0.95


def test_mixup_follows_the_augmentation(records):
  mixup = {"mixup_alpha": 1.0, "cutmix_alpha": 0.0, "prob": 1.0, "label_smoothing": 0.0}
  options = {"batch_augmentation": True, "random_erasing": {"probability": 1.0}}
  images, labels = next(inputs(records, mixup_and_cutmix=mixup, **options))
  assert images.shape == (6, 32, 32, 3) and labels.shape == (6, 10)
  np.testing.assert_allclose(tf.reduce_sum(labels, axis=1), np.ones(6), rtol=1e-5)
  # Each label is mixed with that of the image at the same position from the end.
  assert all(labels[i, i] + labels[i, 5 - i] > 0.999 for i in range(6))


def test_images_of_other_sizes_raise(tmp_path):
  path = write_records(tmp_path / "train", random_images(1, 32, 31))
  with pytest.raises(tf.errors.InvalidArgumentError, match="expected images of 32 x 32 pixels"):
    next(inputs(path, batch_augmentation=True))


def test_normalization_equals_that_of_single_images():
  images = random_images(3)
  expected = preprocess_ops.normalize_image(
    tf.cast(images, tf.float32), offset=preprocess_ops.MEAN_RGB, scale=preprocess_ops.STDDEV_RGB
  )
  data = exp_factory.get_exp_config("sasa_resnet_cifar10").task.train_data
  data.override({"aug_rand_hflip": False})
  np.testing.assert_array_equal(batch_inputs.augment_images(tf.constant(images), data), expected)
