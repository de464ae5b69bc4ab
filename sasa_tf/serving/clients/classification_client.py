"""Client of exported classifiers: the most probable classes of image files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from sasa_tf.data.inputs.values import one_line
from sasa_tf.reporting.display_width import padded
from sasa_tf.serving.clients.encoded_image_model import EncodedImageModel
from sasa_tf.serving.clients.unreadable_images import UnreadableImages


class Prediction(NamedTuple):
  """A class and its probability."""

  label: int
  name: str
  probability: float


def classify(model: EncodedImageModel, image: str, top_k: int) -> list[Prediction]:
  """Returns the `top_k` most probable classes of an image file, in descending order.

  Args:
    model: an exported classifier.
    image: path of the image file.
    top_k: number of classes to return.

  Raises:
    UnreadableImageError: If the file does not exist or is not an image.
  """
  probabilities = model.run(image)["probs"]
  best = np.argsort(-probabilities, kind="stable")[:top_k].tolist()
  return [Prediction(i, model.name_of(i), float(probabilities[i])) for i in best]


def classification_lines(
  model: EncodedImageModel, images: Sequence[str], top_k: int
) -> Iterator[str]:
  """Yields the lines of a table with the `top_k` classes of each image.

  Raises:
    UnreadableImageError: After the lines of the other images, if an image cannot be read.
  """
  unreadable = UnreadableImages()
  for image in images:
    with unreadable.collected():
      predictions = classify(model, image, top_k)
      yield one_line(image)
      for prediction in predictions:
        bar = "#" * round(30 * prediction.probability)
        yield f"  {prediction.probability:6.1%}  {padded(prediction.name, 20)} {bar}".rstrip()
  unreadable.raise_errors(len(images))
