"""Annotated pictures to TFRecords: what the converters of VOC and COCO have in common."""

import collections
import dataclasses
import functools
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from sasa_tf.data.detection.box_classes import BoxClasses
from sasa_tf.data.detection.boxes import AnnotatedImage, Problem
from sasa_tf.data.errors import BrokenImageError, DatasetError
from sasa_tf.data.tfrecord.sharded_writer import DatasetSummary, plan_split, write_dataset
from sasa_tf.data.tfrecord.splits import hold_out, shuffled

if TYPE_CHECKING:
  from sasa_tf.data.examples import EncodedExample


def write_annotated_images(
  output: str | os.PathLike,
  members: Mapping[str, Sequence[AnnotatedImage]],
  classes: BoxClasses,
  *,
  problems: Mapping[str, Sequence[Problem]] | None = None,
  seed: int = 0,
  num_shards: int = 0,
  num_processes: int = 0,
  strict: bool = False,
  overwrite: bool = False,
) -> DatasetSummary:
  """Writes splits of annotated pictures as `write_dataset` does.

  Args:
    output: the directory to write.
    members: {split: images}.
    classes: the classes of all boxes.
    problems: {split: what is wrong with annotations that belong to no image}.
    seed: another seed shuffles otherwise.
    num_shards: files a split, 0 for automatic.
    num_processes: worker processes, 0 for automatic, 1 for this process.
    strict: whether a broken image or a faulty annotation is fatal.
    overwrite: whether to replace finished splits.

  Returns:
    Figures of the splits.

  Raises:
    DatasetError: nothing was written, and why.
  """
  problems = problems or {}
  plans = {}
  for name, images in members.items():
    of_split = problems.get(name, ())
    if strict and of_split:
      raise of_split[0].as_error()
    num_bytes = sum(_size(image.path) for image in images)
    plan = plan_split(name, shuffled(images, seed, image_name), num_bytes, num_shards)
    plans[name] = dataclasses.replace(plan, problems=of_split)
  return write_dataset(
    output,
    plans,
    classes.labels,
    functools.partial(_encode, class_names=classes.labels),
    categories=classes.categories,
    num_processes=num_processes,
    strict=strict,
    overwrite=overwrite,
  )


def hold_out_images(
  images: Sequence[AnnotatedImage], fraction: float, seed: int, split: str
) -> dict[str, list[AnnotatedImage]]:
  """Divides images into `split` and "validation", each class going into both.

  An image counts as one of its rarest class, so that rare ones are held out too.

  Raises:
    DatasetError: the fraction is not between 0 and 1, or the split is called validation itself.
  """
  if split == "validation":
    raise DatasetError("--validation_fraction needs a --split of another name than validation.")
  counts = collections.Counter(box.label for image in images for box in image.boxes)

  def rarest(image: AnnotatedImage) -> int:
    return min(
      (box.label for box in image.boxes), key=lambda label: (counts[label], label), default=0
    )

  kept, held = hold_out(images, fraction, seed, image_name, rarest)
  return {split: kept, "validation": held}


def image_name(image: AnnotatedImage) -> str:
  """Returns the name that an image is shuffled and held out by."""
  return image.name


def _size(path: str) -> int:
  try:
    return os.path.getsize(path)
  except OSError:
    return 0  # missing, of which its turn will tell


def _encode(image: AnnotatedImage, class_names: Sequence[str]) -> "EncodedExample":
  from sasa_tf.data.detection.detection_examples import detection_example

  if image.fault:
    raise BrokenImageError(f"{image.origin}: {image.fault}")
  try:
    return detection_example(pathlib.Path(image.path).read_bytes(), image, class_names)
  except OSError as error:
    raise BrokenImageError(f"{image.origin}: {image.path}: {error.strerror}") from error
  except BrokenImageError as error:
    raise BrokenImageError(f"{image.path}: {error}") from error
