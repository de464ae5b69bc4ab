"""Converts COCO data sets, an instances file and images, to TFRecords."""

import os
import sys
from collections.abc import Sequence
from typing import Any

from sasa_tf.data.detection.annotated_images import hold_out_images, write_annotated_images
from sasa_tf.data.detection.boxes import classes_of_categories, parse_classes
from sasa_tf.data.detection.coco_files import (
  CocoFile,
  check_images_exist,
  join_annotations,
  read_coco,
)
from sasa_tf.data.errors import DatasetError
from sasa_tf.data.images.options import MAX_PIXELS, ImageOptions
from sasa_tf.data.tfrecord.sharded_writer import DatasetSummary

_MAX_CLASSES = 10_000


def convert(
  input: str | os.PathLike,
  annotations: str | os.PathLike,
  output: str | os.PathLike,
  *,
  classes: str = "",
  category_ids: str = "original",
  split: str = "train",
  validation_fraction: float = 0.0,
  exif_boxes: str = "displayed",
  max_pixels: int = MAX_PIXELS,
  verify: str = "decode",
  seed: int = 0,
  num_shards: int = 0,
  num_processes: int = 0,
  strict: bool = False,
  overwrite: bool = False,
) -> DatasetSummary:
  """Converts the images of an instances file to one split, or two.

  Args:
    input: folder of the images.
    annotations: the instances file.
    output: the directory to write to.
    classes: comma-separated names, or a .txt file of them. Annotations of other categories are
      skipped. "" for all categories.
    category_ids: "original" uses the ids of the file as labels, including gaps: COCO's 80
      categories have ids up to 90, so a model needs 91 classes. "contiguous" numbers the categories
      from 1, in the order of their ids or of `classes`; the written annotation files then also
      contain each category's original_id.
    split: name of the split.
    validation_fraction: fraction to write as split "validation"; 0 for none.
    exif_boxes: what boxes of an image with an EXIF orientation refer to if the annotated size does
      not decide: the "displayed" image, or the "stored" pixels.
    max_pixels: images with more pixels are skipped without decoding them.
    verify: "decode" or "full", see `ImageOptions`.
    seed: determines the order of the examples and which images are held out.
    num_shards: number of files per split; 0 chooses the number.
    num_processes: worker processes; 0 chooses the number, 1 writes in this process.
    strict: whether to stop at a broken image or an invalid annotation instead of skipping it.
    overwrite: whether to replace finished splits.

  Returns:
    Statistics of the splits.

  Raises:
    DatasetError: if nothing was written.
  """
  if category_ids not in ("original", "contiguous"):
    raise DatasetError(f"--category_ids must be original or contiguous, received {category_ids!r}.")
  options = ImageOptions(max_pixels, verify, exif_boxes).checked()
  selected = parse_classes(classes)
  print(f"Reading {os.fspath(annotations)}", file=sys.stderr)
  file = read_coco(annotations)
  categories = _categories(file, selected, category_ids == "contiguous")
  labels = {category.get("original_id", category["id"]): category["id"] for category in categories}
  images, problems = join_annotations(file, input, labels)
  check_images_exist(images, input, file.path)
  members = {split: images}
  if validation_fraction:
    members = hold_out_images(images, validation_fraction, seed, split)
  return write_annotated_images(
    output,
    members,
    classes_of_categories(categories),
    problems={split: problems},
    options=options,
    seed=seed,
    num_shards=num_shards,
    num_processes=num_processes,
    strict=strict,
    overwrite=overwrite,
  )


def _categories(file: CocoFile, selected: Sequence[str], contiguous: bool) -> list[dict[str, Any]]:
  """Returns the categories to convert, with labels as ids."""
  by_name = {category["name"]: category for category in file.categories}
  if len(by_name) < len(file.categories):
    raise DatasetError(f"{file.path}: two categories have the same name. Rename one of them.")
  if unknown := [repr(name) for name in selected if name not in by_name]:
    raise DatasetError(
      f"--classes contains {', '.join(unknown)}, which {file.path} does not have. Its categories: "
      f"{', '.join(by_name)}."
    )
  categories = [by_name[name] for name in selected] if selected else file.categories
  if contiguous:
    return [
      {**category, "id": label, "original_id": category["id"]}
      for label, category in enumerate(categories, start=1)
    ]
  ids = [category["id"] for category in categories]
  if min(ids) < 1 or max(ids) > _MAX_CLASSES:
    invalid_id = min(ids) if min(ids) < 1 else max(ids)
    raise DatasetError(
      f"{file.path}: the category id {invalid_id} is not a valid label; expected 1 to "
      f"{_MAX_CLASSES} (0 is the background). Pass --category_ids=contiguous."
    )
  return sorted(categories, key=lambda category: category["id"])
