"""Building the tf.train.Examples that Model Garden's readers parse."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import tensorflow as tf

from sasa_tf.data.detection.boxes import CheckedImage, Problem
from sasa_tf.data.images import inspect_image


class EncodedExample(NamedTuple):
  """A serialized tf.train.Example, and what is to be told of it.

  Attributes:
    serialized: the example.
    image_format: the format of its image, for the tally.
    problems: what was wrong with its annotations.
    image: the boxes that it holds, for the annotation file; None without boxes.
  """

  serialized: bytes
  image_format: str
  problems: Sequence[Problem] = ()
  image: CheckedImage | None = None


def classification_example(
  encoded: bytes, label: int, class_name: str, filename: str
) -> EncodedExample:
  """Builds the example of a labelled image, after decoding it once as a check.

  Args:
    encoded: the image file's bytes, stored unchanged.
    label: class number, from 0.
    class_name: class name.
    filename: name to find the image again by.

  Returns:
    The example, with Model Garden's classification keys.

  Raises:
    BrokenImageError: training could not decode the image.
  """
  facts = inspect_image(encoded)
  features = {
    "image/encoded": [encoded],
    "image/format": [facts.format.encode()],
    "image/height": [facts.height],
    "image/width": [facts.width],
    "image/filename": [filename.encode("utf-8", "surrogateescape")],
    "image/class/label": [label],
    "image/class/text": [class_name.encode()],
  }
  return EncodedExample(serialize(features), facts.format)


def serialize(features: Mapping[str, Sequence[bytes | int | float]]) -> bytes:
  """Serializes lists of one type each; equal features give equal bytes."""
  example = tf.train.Example()
  for name, values in features.items():
    kinds = {type(value) for value in values}
    feature = example.features.feature[name]
    if kinds <= {bytes}:
      feature.bytes_list.value.extend(values)
    elif kinds == {int}:
      feature.int64_list.value.extend(values)
    elif kinds == {float}:
      feature.float_list.value.extend(values)
    else:
      raise TypeError(f"feature {name!r} must hold bytes, ints or floats, received {kinds}.")
  return example.SerializeToString(deterministic=True)
