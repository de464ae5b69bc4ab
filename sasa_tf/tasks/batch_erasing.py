"""Random erasing of batches, with the distribution of Model Garden's erasing of each image."""

from __future__ import annotations

import dataclasses
import math

import tensorflow as tf

from sasa_tf.configs.image_classification import RandomErasing


@dataclasses.dataclass(frozen=True)
class Rectangles:
  """One rectangle of each image, clipped to it; each field has the shape [B].

  Attributes:
    fits: whether there is one.
    center_row: of the center.
    center_column: of the center.
    half_height: rows above the center, and from it downwards.
    half_width: columns left of the center, and from it to the right.
  """

  fits: tf.Tensor
  center_row: tf.Tensor
  center_column: tf.Tensor
  half_height: tf.Tensor
  half_width: tf.Tensor


def random_erasing(images: tf.Tensor, config: RandomErasing) -> tf.Tensor:
  """Replaces random rectangles of images [B, H, W, C] by noise from N(0, 1).

  Args:
    images: [B, H, W, C], floating point.
    config: probability of a rectangle, its area and aspect.

  Returns:
    [B, H, W, C].
  """
  batch, height, width, _ = tf.unstack(tf.shape(images))
  chosen = tf.random.uniform([batch]) < config.probability
  rectangles = random_rectangles(batch, height, width, config)
  return fill_with_noise(images, dataclasses.replace(rectangles, fits=rectangles.fits & chosen))


def random_rectangles(
  batch: tf.Tensor, height: tf.Tensor, width: tf.Tensor, config: RandomErasing
) -> Rectangles:
  """Returns for each image the first of `config.trials` rectangles that fits into it.

  Args:
    batch: number of images.
    height: of the images.
    width: of the images.
    config: range of the areas, as fractions of the image, and of the aspects, height over width.
  """
  trials = [batch, config.trials]
  area = tf.cast(height * width, tf.float32)
  areas = tf.random.uniform(trials, area * config.min_area, area * config.max_area)
  log_aspect = abs(math.log(config.min_aspect))
  aspects = tf.exp(tf.random.uniform(trials, -log_aspect, log_aspect))
  half_heights = tf.cast(tf.round(tf.sqrt(areas * aspects) / 2), tf.int32)
  half_widths = tf.cast(tf.round(tf.sqrt(areas / aspects) / 2), tf.int32)
  fits = (2 * half_heights < height) & (2 * half_widths < width)
  first = tf.argmax(tf.cast(fits, tf.int32), axis=1)
  half_height, half_width = (
    tf.gather(halves, first, axis=1, batch_dims=1) for halves in (half_heights, half_widths)
  )
  return Rectangles(
    fits=tf.reduce_any(fits, axis=1),
    center_row=_random_below(height - 2 * half_height),
    center_column=_random_below(width - 2 * half_width),
    half_height=half_height,
    half_width=half_width,
  )


def _random_below(limits: tf.Tensor) -> tf.Tensor:
  """Returns random integers [B] from 0 to below the limits [B]."""
  uniform = tf.random.uniform(tf.shape(limits)) * tf.cast(limits, tf.float32)
  return tf.minimum(tf.cast(uniform, tf.int32), limits - 1)


def fill_with_noise(images: tf.Tensor, rectangles: Rectangles) -> tf.Tensor:
  """Replaces rectangles of images [B, H, W, C] by noise, which is drawn for them only."""
  _, height, width, channels = tf.unstack(tf.shape(images))
  rows = _inside(height, rectangles.center_row, rectangles.half_height)
  columns = _inside(width, rectangles.center_column, rectangles.half_width)
  erased = tf.where(rectangles.fits[:, None, None] & rows[:, :, None] & columns[:, None, :])
  noise = tf.random.normal([tf.shape(erased)[0], channels], dtype=images.dtype)
  return tf.tensor_scatter_nd_update(images, erased, noise)


def _inside(size: tf.Tensor, center: tf.Tensor, half: tf.Tensor) -> tf.Tensor:
  """Returns whether the positions along an axis are within the rectangles, [B, size]."""
  positions = tf.range(size)[None]
  return (positions >= (center - half)[:, None]) & (positions < (center + half)[:, None])
