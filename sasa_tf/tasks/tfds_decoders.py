"""TensorFlow Datasets' images as the bytes that they were stored as, decoded once."""

from __future__ import annotations

from typing import Any

import tensorflow as tf
from official.core import config_definitions
from official.vision.dataloaders import (
  tfds_classification_decoders,
  tfds_detection_decoders,
)

_IMAGE = "image"
# The names of data sets whose images are stored as JPEG; those of others are PNG.
_JPEG = ("imagenet2012", "coco", "scenic:objects365")


class ClassificationDecoder(tfds_classification_decoders.ClassificationDecorder):
  """As Model Garden's, which encodes the decoded image as JPEG; encoded ones are left alone."""

  def decode(self, serialized_example: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    """Returns the encoded image and the label."""
    image = serialized_example[_IMAGE]
    if image.dtype != tf.string:
      return super().decode(serialized_example)
    return {"image/encoded": image, "image/class/label": serialized_example["label"]}


class DetectionDecoder(tfds_detection_decoders.MSCOCODecoder):
  """As Model Garden's, for images that are still encoded too, which shuffle in less memory."""

  def decode(self, serialized_example: dict[str, Any]) -> dict[str, tf.Tensor]:
    """Returns the image [H, W, 3] uint8 and its boxes."""
    image = serialized_example[_IMAGE]
    if image.dtype == tf.string:
      image = tf.io.decode_jpeg(image, channels=3)
    return super().decode({**serialized_example, _IMAGE: image})


def pass_through(data: config_definitions.DataConfig) -> config_definitions.DataConfig:
  """Returns the configuration that reads encoded images from TFDS, wherever they can be used.

  Args:
    data: of train_data or validation_data; unchanged if it is of no TFDS data set that is known, or
      says itself which feature to leave encoded.
  """
  name = data.tfds_name
  if not isinstance(name, str) or name not in _DECODERS or data.tfds_skip_decoding_feature:
    return data
  # Model Garden then reads the size of an image from its JPEG head.
  jpeg_only = getattr(data, "decode_jpeg_only", False) and getattr(data, "aug_crop", False)
  if jpeg_only and not name.startswith(_JPEG):
    return data
  return data.replace(tfds_skip_decoding_feature=_IMAGE)


_DECODERS = {
  **dict.fromkeys(tfds_classification_decoders.TFDS_ID_TO_DECODER_MAP, ClassificationDecoder),
  **dict.fromkeys(tfds_detection_decoders.TFDS_ID_TO_DECODER_MAP, DetectionDecoder),
}


def register() -> None:
  """Puts our decoders in the place of Model Garden's; they do the same and more."""
  for registry in (tfds_classification_decoders, tfds_detection_decoders):
    known = registry.TFDS_ID_TO_DECODER_MAP
    known.update({name: _DECODERS[name] for name in known})
