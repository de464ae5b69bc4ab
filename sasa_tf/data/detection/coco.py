"""COCO's instances files and pictures to TFRecords."""

import os
import sys
from collections.abc import Sequence
from typing import Any

from sasa_tf.data.detection.annotated_images import hold_out_images, write_annotated_images
from sasa_tf.data.detection.box_classes import box_classes, parse_classes
from sasa_tf.data.detection.coco_files import CocoFile, annotated_images, read_coco
from sasa_tf.data.errors import DatasetError
from sasa_tf.data.tfrecord.sharded_writer import DatasetSummary

_MOST_CLASSES = 10_000


def convert(
  input: str | os.PathLike,
  annotations: str | os.PathLike,
  output: str | os.PathLike,
  *,
  classes: str = "",
  category_ids: str = "original",
  split: str = "train",
  validation_fraction: float = 0.0,
  seed: int = 0,
  num_shards: int = 0,
  num_processes: int = 0,
  strict: bool = False,
  overwrite: bool = False,
) -> DatasetSummary:
  """Converts the images that an instances file lists into one split, or two.

  Args:
    input: folder of the pictures.
    annotations: the instances file.
    output: where to write.
    classes: names separated by commas, or a .txt file of them; annotations of other categories are
      left out. "" for all.
    category_ids: "original" keeps the file's ids as labels, gaps and all: COCO's 80 categories have
      ids up to 90, so a model needs 91 classes. "contiguous" numbers the categories from 1, in the
      order of their ids or of `classes`; annotation files then hold each one's original_id too.
    split: name of the split.
    validation_fraction: share to write as split "validation" instead; 0 for none.
    seed: another seed shuffles and holds out otherwise.
    num_shards: files a split, 0 for automatic.
    num_processes: worker processes, 0 for automatic, 1 for this process.
    strict: whether a broken image or a faulty annotation is fatal rather than left out.
    overwrite: whether to replace finished splits.

  Returns:
    Figures of the splits.

  Raises:
    DatasetError: nothing was written, and why.
  """
  if category_ids not in ("original", "contiguous"):
    raise DatasetError(f"--category_ids must be original or contiguous, received {category_ids!r}.")
  chosen = parse_classes(classes)
  print(f"Reading {os.fspath(annotations)}", file=sys.stderr)
  file = read_coco(annotations)
  categories = _categories(file, chosen, category_ids == "contiguous")
  labels = {category.get("original_id", category["id"]): category["id"] for category in categories}
  images, homeless = annotated_images(file, input, labels)
  members = {split: images}
  if validation_fraction:
    members = hold_out_images(images, validation_fraction, seed, split)
  return write_annotated_images(
    output,
    members,
    box_classes(categories),
    problems={split: homeless},
    seed=seed,
    num_shards=num_shards,
    num_processes=num_processes,
    strict=strict,
    overwrite=overwrite,
  )


def _categories(file: CocoFile, chosen: Sequence[str], contiguous: bool) -> list[dict[str, Any]]:
  """Returns the categories to keep, with labels as ids."""
  by_name = {category["name"]: category for category in file.categories}
  if len(by_name) < len(file.categories):
    raise DatasetError(f"{file.path}: two categories have the same name. Rename one of them.")
  if unknown := [repr(name) for name in chosen if name not in by_name]:
    raise DatasetError(
      f"--classes names {', '.join(unknown)}, which {file.path} does not have. It has "
      f"{', '.join(by_name)}."
    )
  kept = [by_name[name] for name in chosen] if chosen else file.categories
  if contiguous:
    return [
      {**_kept_keys(category), "id": label, "original_id": category["id"]}
      for label, category in enumerate(kept, start=1)
    ]
  ids = [category["id"] for category in kept]
  if min(ids) < 1 or max(ids) > _MOST_CLASSES:
    unfit = min(ids) if min(ids) < 1 else max(ids)
    raise DatasetError(
      f"{file.path}: the category id {unfit} cannot be a label, which lie between 1 and "
      f"{_MOST_CLASSES} (0 is the background). Pass --category_ids=contiguous."
    )
  return sorted(map(_kept_keys, kept), key=lambda category: category["id"])


def _kept_keys(category: dict[str, Any]) -> dict[str, Any]:
  return {key: category[key] for key in ("id", "name", "supercategory") if key in category}
