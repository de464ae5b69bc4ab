"""Client of exported detectors: lists the objects in image files and draws them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import tensorflow as tf

from sasa_tf.data.images.orientation import decode_upright
from sasa_tf.data.inputs.values import one_line
from sasa_tf.reporting.display_width import display_width, padded
from sasa_tf.serving.clients.drawing import draw_detections
from sasa_tf.serving.clients.drawn_files import check_drawn_files, save_drawn
from sasa_tf.serving.clients.encoded_image_model import EncodedImageModel, read_file
from sasa_tf.serving.clients.unreadable_images import UnreadableImages


class Detection(NamedTuple):
  """A detected object: class, score and box (xmin, ymin, xmax, ymax) in pixels of the image."""

  label: int
  name: str
  score: float
  box: tuple[float, float, float, float]


def detect(model: EncodedImageModel, image: str, score_threshold: float) -> list[Detection]:
  """Returns the objects in an image file, in descending order of the score.

  Args:
    model: an exported detector.
    image: path of the image file.
    score_threshold: minimum score, from 0 to 1.

  Raises:
    UnreadableImageError: If the file does not exist or is not an image.
  """
  outputs = model.run(image)
  number = int(outputs["num_detections"])
  found = zip(
    outputs["detection_boxes"][:number].tolist(),
    outputs["detection_scores"][:number].tolist(),
    outputs["detection_classes"][:number].astype(int).tolist(),
    strict=True,
  )
  return [
    Detection(label, model.name_of(label), score, (xmin, ymin, xmax, ymax))
    for (ymin, xmin, ymax, xmax), score, label in found
    if score >= score_threshold
  ]


def detection_lines(
  model: EncodedImageModel, images: Sequence[str], score_threshold: float, output: str | None
) -> Iterator[str]:
  """Yields the lines of a table with the objects in each image, and draws them.

  Args:
    model: an exported detector.
    images: paths of the image files.
    score_threshold: minimum score, from 0 to 1.
    output: directory for one PNG file per image, created if missing; files that this program drew
      earlier are replaced. None draws nothing.

  Raises:
    UserError: If a file cannot be written or was not drawn by this program.
    UnreadableImageError: After the lines of the other images, if an image cannot be read.
  """
  drawn = check_drawn_files(images, output) if output else [None] * len(images)
  unreadable = UnreadableImages()
  for image, file in zip(images, drawn, strict=True):
    with unreadable.collected():
      found = detect(model, image, score_threshold)
      if file:
        pixels = decode_upright(tf.constant(read_file(image))).numpy()
        save_drawn(file, draw_detections(pixels, found))
      heading = f"{image}: {len(found)} with a score of {score_threshold:.0%} or more"
      yield one_line(heading + (f", drawn to {file}" if file else ""))
      yield from _table(found)
  unreadable.raise_errors(len(images))


def _table(found: Sequence[Detection]) -> Iterator[str]:
  if not found:
    return
  width = max([5, *(display_width(detection.name) for detection in found)])
  yield f"   score  {'class':<{width}}   xmin   ymin   xmax   ymax"
  for detection in found:
    corners = "".join(f"{corner:7.1f}" for corner in detection.box)
    yield f"  {detection.score:6.1%}  {padded(detection.name, width)}{corners}"
