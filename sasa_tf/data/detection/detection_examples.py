"""Building the tf.train.Examples that Model Garden's detection decoder parses."""

from collections.abc import Sequence

from sasa_tf.data.detection.boxes import AnnotatedImage, CheckedImage, check_boxes
from sasa_tf.data.errors import BrokenImageError
from sasa_tf.data.examples import EncodedExample, serialize
from sasa_tf.data.images import inspect_image


def detection_example(
  encoded: bytes, image: AnnotatedImage, class_names: Sequence[str]
) -> EncodedExample:
  """Builds the example of a picture with boxes, after decoding it once as a check.

  Args:
    encoded: the picture's bytes, stored unchanged.
    image: what its annotation says.
    class_names: class names in the order of the labels.

  Returns:
    The example with the keys of Model Garden's TfExampleDecoder, the boxes that it holds and the
    problems of others.

  Raises:
    BrokenImageError: training could not decode the picture, or the annotation is of another size.
  """
  facts = inspect_image(encoded)
  if image.size and image.size != (facts.height, facts.width):
    raise BrokenImageError(
      f"the annotation is for {image.size[1]}x{image.size[0]} pixels, the picture has "
      f"{facts.width}x{facts.height}: scaled or turned after it was annotated?"
    )
  boxes, problems = check_boxes(image, facts.height, facts.width, class_names)
  features = {
    "image/encoded": [encoded],
    "image/format": [facts.format.encode()],
    "image/height": [facts.height],
    "image/width": [facts.width],
    "image/filename": [image.name.encode("utf-8", "surrogateescape")],
    "image/source_id": [str(image.source_id).encode()],
  }
  if boxes:
    features |= {
      "image/object/bbox/xmin": [box.xmin / facts.width for box in boxes],
      "image/object/bbox/xmax": [box.xmax / facts.width for box in boxes],
      "image/object/bbox/ymin": [box.ymin / facts.height for box in boxes],
      "image/object/bbox/ymax": [box.ymax / facts.height for box in boxes],
      "image/object/class/label": [box.label for box in boxes],
      "image/object/class/text": [class_names[box.label].encode() for box in boxes],
      "image/object/is_crowd": [int(box.is_crowd) for box in boxes],
      "image/object/area": [box.area for box in boxes],
    }
  checked = CheckedImage(image.source_id, image.name, facts.height, facts.width, tuple(boxes))
  return EncodedExample(serialize(features), facts.format, tuple(problems), checked)
