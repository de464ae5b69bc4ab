"""An image file, preprocessed for a model."""

from __future__ import annotations

import dataclasses

import numpy as np
import tensorflow as tf


@dataclasses.dataclass(frozen=True)
class PreparedImage:
  """An image file as the model sees it.

  Attributes:
    path: of the file.
    pixels: uint8 [h, w, 3], the resized image, without the padding of detectors.
    inputs: float32 [1, H, W, 3], the input of the model. The image is at its top left.
  """

  path: str
  pixels: np.ndarray
  inputs: tf.Tensor
