"""Options of the conversion of image files."""

from __future__ import annotations

from typing import NamedTuple

from sasa_tf.data.errors import DatasetError

MAX_PIXELS = 100_000_000  # 300 MB decoded
# The evaluation of a classifier crops 7/8 of the shorter side: of one pixel, nothing.
MIN_CLASSIFIED_SIDE = 2


class ImageOptions(NamedTuple):
  """How image files are checked and oriented.

  Attributes:
    max_pixels: images with more pixels are skipped without decoding them.
    verify: "decode" accepts what TensorFlow decodes; "full" also requires that the decoder reports
      no errors and that checksums match.
    exif_boxes: which pixels the boxes of an image with an EXIF orientation refer to if the
      annotated size does not decide: "displayed" or "stored".
  """

  max_pixels: int = MAX_PIXELS
  verify: str = "decode"
  exif_boxes: str = "displayed"

  def checked(self) -> ImageOptions:
    """Returns the options.

    Raises:
      DatasetError: if one of them has an invalid value.
    """
    if self.max_pixels < 1:
      raise DatasetError(f"--max_pixels must be 1 or more, received {self.max_pixels}.")
    if self.verify not in ("decode", "full"):
      raise DatasetError(f"--verify must be decode or full, received {self.verify!r}.")
    if self.exif_boxes not in ("displayed", "stored"):
      raise DatasetError(f"--exif_boxes must be displayed or stored, received {self.exif_boxes!r}.")
    return self
