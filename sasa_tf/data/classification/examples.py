"""tf.train.Examples of labelled images, as Model Garden's classification decoder parses them."""

from sasa_tf.data.errors import BrokenImageError
from sasa_tf.data.images.options import MIN_CLASSIFIED_SIDE, ImageOptions
from sasa_tf.data.tfrecord.image_example import (
  EncodedExample,
  image_features,
  load_image,
  serialize,
)


def classification_example(
  encoded: bytes,
  label: int,
  class_name: str,
  filename: str,
  options: ImageOptions | None = None,
) -> EncodedExample:
  """Builds the example of a labelled image.

  Args:
    encoded: content of the image file. It is decoded once as a check, and stored unchanged unless
      its EXIF orientation requires to turn it.
    label: class label, from 0.
    class_name: class name.
    filename: name of the image, stored in the example.
    options: see `load_image`.

  Returns:
    The example with Model Garden's classification keys.

  Raises:
    BrokenImageError: if training could not decode the image, or a side has one pixel.
  """
  image = load_image(encoded, options)
  if min(image.height, image.width) < MIN_CLASSIFIED_SIDE:
    raise BrokenImageError(
      f"{image.width:,} x {image.height:,} pixels: the center crop of the evaluation is empty. "
      f"Expected at least {MIN_CLASSIFIED_SIDE} pixels per side"
    )
  features = image_features(image, filename)
  features["image/class/label"] = [label]
  features["image/class/text"] = [class_name.encode()]
  return EncodedExample(serialize(features), image.format, notes=image.notes)
