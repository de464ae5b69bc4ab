"""tf.train.Examples of labelled images, as Model Garden's classification decoder parses them."""

from sasa_tf.data.tfrecord.image_example import (
  EncodedExample,
  image_features,
  inspect_image,
  serialize,
)


def classification_example(
  encoded: bytes, label: int, class_name: str, filename: str
) -> EncodedExample:
  """Builds the example of a labelled image.

  Args:
    encoded: content of the image file, stored unchanged. It is decoded once as a check.
    label: class label, from 0.
    class_name: class name.
    filename: name of the image, stored in the example.

  Returns:
    The example with Model Garden's classification keys.

  Raises:
    BrokenImageError: if training could not decode the image.
  """
  info = inspect_image(encoded)
  features = image_features(encoded, info, filename)
  features["image/class/label"] = [label]
  features["image/class/text"] = [class_name.encode()]
  return EncodedExample(serialize(features), info.format)
