"""The images of an export: of the data that the configuration names, of files, or noise."""

from __future__ import annotations

import glob
import pathlib
from typing import Any

from sasa_tf.errors import UserError
from sasa_tf.serving.example_images import ExampleImages, noise_images, read_images
from sasa_tf.training.example_images import read_examples

_VERIFIED = 8
_EVALUATED = 1000
# Of the evaluated images in float32; bounds what is written for the runtime's process.
_MAX_BYTES = 200_000_000


def find_images(
  params: Any, *, verify: bool, pattern: str | None, quantize: str, num_calibration_images: int
) -> ExampleImages:
  """Returns the images of an export.

  Args:
    params: configuration of the experiment.
    verify: whether the exports are verified.
    pattern: of --verification_images.
    quantize: of --quantize.
    num_calibration_images: of --calibration_images.

  Raises:
    UserError: no file matches the pattern, or one is not an image.
  """
  files = _files(pattern) if pattern else []
  calibration: list[bytes] = []
  if quantize == "int8":
    examples = read_examples(params, "train_data", num_calibration_images)
    calibration = [each.image for each in examples] or files[:num_calibration_images]
  if not verify:
    return ExampleImages(calibration=calibration)
  evaluated = []
  if quantize != "none":
    height, width = params.task.model.input_size[:2]
    count = max(1, min(_EVALUATED, _MAX_BYTES // (height * width * 3 * 4)))
    examples = read_examples(params, "validation_data", count)
    evaluated = [each for each in examples if each.label is not None]
  images, source = files[:_VERIFIED], f"{len(files[:_VERIFIED])} images of {pattern}"
  if not files:
    images, source = _of_data(params)
  return ExampleImages(
    images,
    source,
    calibration,
    [each.image for each in evaluated],
    [each.label for each in evaluated],
  )


def _files(pattern: str) -> list[bytes]:
  paths = sorted(filter(pathlib.Path.is_file, map(pathlib.Path, glob.glob(pattern))))
  if not paths:
    raise UserError(f"--verification_images={pattern}: no file matches. Pass a pattern of images.")
  return read_images(paths)


def _of_data(params: Any) -> tuple[list[bytes], str]:
  for name in ("validation_data", "train_data"):
    images = [each.image for each in read_examples(params, name, _VERIFIED)]
    if images:
      return images, f"{len(images)} images of task.{name}"
  size = params.task.model.input_size[:2]
  return noise_images(size, _VERIFIED), (
    f"{_VERIFIED} images of random noise, as the data of the configuration cannot be read"
  )
