"""The images that an export uses: to verify, to calibrate and to evaluate exported models."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from sasa_tf.data.images.orientation import decode_upright
from sasa_tf.data.images.pixel_limit import bomb_problem
from sasa_tf.data.inputs.regular_files import read_bytes
from sasa_tf.errors import UserError
from sasa_tf.serving.verification.trained_model import TrainedModel

_NOISE_SEED = 0
_NOISE_CELLS = 6


@dataclasses.dataclass(frozen=True)
class ExampleImages:
  """Encoded images for the steps of an export.

  Attributes:
    verification: images on which exported models are compared with the trained model.
    source: what these are, for the report.
    calibration: images that determine the ranges of quantized tensors.
    evaluation: images with labels, for the accuracy of quantized classifiers.
    labels: of `evaluation`.
  """

  verification: Sequence[bytes] = ()
  source: str = ""
  calibration: Sequence[bytes] = ()
  evaluation: Sequence[bytes] = ()
  labels: Sequence[int] = ()


def noise_images(size: Sequence[int], count: int) -> list[bytes]:
  """Returns PNG images of smooth color noise.

  Args:
    size: (H, W).
    count: number of images.
  """
  random = np.random.default_rng(_NOISE_SEED)
  cells = random.uniform(0, 255, [count, _NOISE_CELLS, _NOISE_CELLS, 3])
  smooth = tf.clip_by_value(tf.round(tf.image.resize(cells, list(size), "bicubic")), 0, 255)
  return [tf.io.encode_png(tf.cast(image, tf.uint8)).numpy() for image in smooth]


def read_images(paths: Sequence[str | os.PathLike]) -> list[bytes]:
  """Returns the content of image files.

  Raises:
    UserError: a file cannot be read or is not an image.
  """
  images = []
  for path in paths:
    name = os.fspath(path)
    try:
      encoded = read_bytes(path)
      if problem := bomb_problem(encoded):
        raise UserError(f"{name} is {problem}. Pass a smaller image.")
      decode_upright(tf.constant(encoded))
    except OSError as error:
      raise UserError(f"{name} cannot be read: {error.strerror}.") from error
    except tf.errors.InvalidArgumentError as error:
      raise UserError(
        f"{name} cannot be decoded: expected a JPEG, PNG, GIF, BMP or WebP image."
      ) from error
    images.append(encoded)
  return images


def prepared_images(module: Any, encoded: Sequence[bytes]) -> np.ndarray:
  """Returns encoded images as the prepared signature takes them: float32 [B, H, W, 3], 0 to 255.

  Args:
    module: export module.
    encoded: at least one image.
  """
  ((_, prepared),) = TrainedModel(module, encoded, None).inputs("prepared")
  return prepared
