"""Decoders for TensorFlow Datasets that pass encoded images through, to decode them once."""

from __future__ import annotations

from typing import Any

import tensorflow as tf
from official.core import config_definitions
from official.vision.dataloaders import (
  tfds_classification_decoders,
  tfds_detection_decoders,
)

_IMAGE = "image"
# Prefixes of the datasets that store JPEG images. The others store PNG.
_JPEG = ("imagenet2012", "coco", "scenic:objects365")


class ClassificationDecoder(tfds_classification_decoders.ClassificationDecorder):
  """Model Garden's decoder, except that images that are still encoded are passed through."""

  def decode(self, serialized_example: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    """Returns the encoded image and the label."""
    image = serialized_example[_IMAGE]
    if image.dtype != tf.string:
      return super().decode(serialized_example)
    return {"image/encoded": image, "image/class/label": serialized_example["label"]}


class DetectionDecoder(tfds_detection_decoders.MSCOCODecoder):
  """Model Garden's decoder, also for encoded images, which need less memory to shuffle."""

  def decode(self, serialized_example: dict[str, Any]) -> dict[str, tf.Tensor]:
    """Returns the image [H, W, 3] uint8 and its boxes."""
    image = serialized_example[_IMAGE]
    if image.dtype == tf.string:
      image = tf.io.decode_jpeg(image, channels=3)
    return super().decode({**serialized_example, _IMAGE: image})


def pass_through(data: config_definitions.DataConfig) -> config_definitions.DataConfig:
  """Returns the configuration that reads encoded images from TFDS, if the decoders support it.

  Args:
    data: configuration of train_data or validation_data. Returned unchanged if it has no supported
      TFDS dataset, or sets `tfds_skip_decoding_feature` itself.
  """
  name = data.tfds_name
  if not isinstance(name, str) or name not in _DECODERS or data.tfds_skip_decoding_feature:
    return data
  # Model Garden then reads the size of an image from its JPEG header.
  jpeg_only = getattr(data, "decode_jpeg_only", False) and getattr(data, "aug_crop", False)
  if jpeg_only and not name.startswith(_JPEG):
    return data
  return data.replace(tfds_skip_decoding_feature=_IMAGE)


_DECODERS = {
  **dict.fromkeys(tfds_classification_decoders.TFDS_ID_TO_DECODER_MAP, ClassificationDecoder),
  **dict.fromkeys(tfds_detection_decoders.TFDS_ID_TO_DECODER_MAP, DetectionDecoder),
}


def register() -> None:
  """Replaces Model Garden's decoders in its registries."""
  for registry in (tfds_classification_decoders, tfds_detection_decoders):
    known = registry.TFDS_ID_TO_DECODER_MAP
    known.update({name: _DECODERS[name] for name in known})
