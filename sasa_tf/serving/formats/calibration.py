"""The images that determine the ranges of quantized tensors."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sasa_tf.errors import UserError

if TYPE_CHECKING:
  import numpy as np


def check_calibration_images(images: np.ndarray | None) -> np.ndarray:
  """Returns the images of `ExportOptions`.

  Args:
    images: float32 [B, H, W, 3], values from 0 to 255; None if the data cannot be read.

  Raises:
    UserError: there are none.
  """
  if images is None or not len(images):
    raise UserError(
      "--quantize=int8 needs images of the data for calibration: no training record can be read. "
      "Set task.train_data.input_path with --params_override, or pass --verification_images."
    )
  return images
