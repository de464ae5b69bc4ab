"""The objects on image files, as a table and drawn."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import tensorflow as tf

from sasa_tf.errors import UserError
from sasa_tf.serving.drawing import draw
from sasa_tf.serving.loading import EncodedImageModel, read


class Detection(NamedTuple):
  """An object: its class, score and box (xmin, ymin, xmax, ymax) in pixels of the image."""

  label: int
  name: str
  score: float
  box: tuple[float, float, float, float]


def detect(model: EncodedImageModel, image: str, score_threshold: float) -> list[Detection]:
  """Returns the objects on an image file, the surest first.

  Args:
    model: a detector.
    image: path.
    score_threshold: the least score, from 0 to 1.

  Raises:
    UserError: the file is missing or no image.
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
  """Yields the lines of a table of the objects on each image, and draws them.

  Args:
    model: a detector.
    images: paths.
    score_threshold: the least score, from 0 to 1.
    output: directory for one PNG file an image, made where missing; None to draw nothing.

  Raises:
    UserError: an image is missing or no image, or the directory cannot be written.
  """
  drawn = _file_names(images, output) if output else [None] * len(images)
  for image, file in zip(images, drawn, strict=True):
    found = detect(model, image, score_threshold)
    if file:
      picture = tf.io.decode_image(read(image), channels=3, expand_animations=False).numpy()
      _save(file, draw(picture, found))
    yield f"{image}: {len(found)} with a score of {score_threshold:.0%} or more" + (
      f", drawn on {file}" if file else ""
    )
    width = max([5, *(len(detection.name) for detection in found)])
    if found:
      yield f"   score  {'class':<{width}}   xmin   ymin   xmax   ymax"
    for detection in found:
      corners = "".join(f"{corner:7.1f}" for corner in detection.box)
      yield f"  {detection.score:6.1%}  {detection.name:<{width}}{corners}"


def _file_names(images: Sequence[str], output: str) -> list[pathlib.Path]:
  """A PNG file for each image, named like it; images of one name are numbered."""
  names: list[str] = []
  for image in images:
    stem = name = pathlib.Path(image).stem
    number = 1
    while name in names:
      number += 1
      name = f"{stem}_{number}"
    names.append(name)
  return [pathlib.Path(output, f"{name}.png") for name in names]


def _save(file: pathlib.Path, picture) -> None:
  try:
    file.parent.mkdir(parents=True, exist_ok=True)
    picture.save(file)
  except OSError as error:
    raise UserError(
      f"--output={file.parent} cannot be written: {error}. Choose a directory that you may write "
      "to."
    ) from error
