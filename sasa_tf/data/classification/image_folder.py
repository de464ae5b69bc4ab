"""Folders of images, one folder a class, to TFRecords."""

import functools
import os
import pathlib
import sys
from typing import TYPE_CHECKING

from sasa_tf.data.classification.folder_scan import ImageFile, scan_image_folder
from sasa_tf.data.errors import BrokenImageError, DatasetError
from sasa_tf.data.tfrecord.sharded_writer import DatasetSummary, plan_split, write_dataset
from sasa_tf.data.tfrecord.splits import hold_out, shuffled

if TYPE_CHECKING:
  from sasa_tf.data.examples import EncodedExample


def convert(
  input: str | os.PathLike,
  output: str | os.PathLike,
  *,
  split: str = "train",
  validation_fraction: float = 0.0,
  seed: int = 0,
  num_shards: int = 0,
  num_processes: int = 0,
  strict: bool = False,
  overwrite: bool = False,
) -> DatasetSummary:
  """Converts <input>/<class>/.../<image>.{jpg,jpeg,png} into one split, or two.

  Args:
    input: the root; its folders' sorted names are the classes.
    output: where to write, outside of `input`.
    split: name of the split.
    validation_fraction: share of every class to write as split "validation" instead; 0 for none.
    seed: another seed shuffles and holds out otherwise.
    num_shards: files a split, 0 for automatic.
    num_processes: worker processes, 0 for automatic, 1 for this process.
    strict: whether a broken image is fatal rather than skipped.
    overwrite: whether to replace finished splits.

  Returns:
    Figures of the splits.

  Raises:
    DatasetError: nothing was written, and why.
  """
  if pathlib.Path(output).resolve().is_relative_to(pathlib.Path(input).resolve()):
    raise DatasetError(f"--output {output} must lie outside of --input {input}.")
  if validation_fraction and split == "validation":
    raise DatasetError("--validation_fraction needs a --split of another name than validation.")
  folder = scan_image_folder(input)
  for warning in folder.warnings:
    print(f"Warning: {warning}", file=sys.stderr)
  members = {split: folder.files}
  if validation_fraction:
    kept, held = hold_out(folder.files, validation_fraction, seed, _name, lambda file: file.label)
    members = {split: kept, "validation": held}
  return write_dataset(
    output,
    {
      name: plan_split(
        name, shuffled(files, seed, _name), sum(file.num_bytes for file in files), num_shards
      )
      for name, files in members.items()
    },
    folder.class_names,
    functools.partial(_encode, root=folder.root, class_names=folder.class_names),
    num_processes=num_processes,
    strict=strict,
    overwrite=overwrite,
  )


def _name(file: ImageFile) -> str:
  return file.name


def _encode(file: ImageFile, root: str, class_names: tuple[str, ...]) -> "EncodedExample":
  from sasa_tf.data.examples import classification_example

  path = os.path.join(root, file.name)
  try:
    encoded = pathlib.Path(path).read_bytes()
    return classification_example(encoded, file.label, class_names[file.label], file.name)
  except OSError as error:
    raise BrokenImageError(f"{path}: {error.strerror}") from error
  except BrokenImageError as error:
    raise BrokenImageError(f"{path}: {error}") from error
