"""Converts image folders, one folder per class, to TFRecords."""

import functools
import os
import pathlib
import sys

from sasa_tf.data.classification.examples import classification_example
from sasa_tf.data.classification.folder_scan import ImageFile, scan_image_folder
from sasa_tf.data.errors import BrokenImageError, DatasetError
from sasa_tf.data.images.options import MAX_PIXELS, ImageOptions
from sasa_tf.data.inputs.regular_files import read_bytes
from sasa_tf.data.tfrecord.image_example import EncodedExample
from sasa_tf.data.tfrecord.sharded_writer import DatasetSummary, write_dataset
from sasa_tf.data.tfrecord.splits import hold_out, plan_split, shuffled


def convert(
  input: str | os.PathLike,
  output: str | os.PathLike,
  *,
  split: str = "train",
  validation_fraction: float = 0.0,
  max_pixels: int = MAX_PIXELS,
  verify: str = "decode",
  seed: int = 0,
  num_shards: int = 0,
  num_processes: int = 0,
  strict: bool = False,
  overwrite: bool = False,
) -> DatasetSummary:
  """Converts <input>/<class>/.../<image>.{jpg,jpeg,png} to one split, or two.

  Args:
    input: the root directory; the sorted names of its folders are the classes.
    output: the directory to write to, outside of `input`.
    split: name of the split.
    validation_fraction: fraction of every class to write as split "validation"; 0 for none.
    max_pixels: images with more pixels are skipped without decoding them.
    verify: "decode" or "full", see `ImageOptions`.
    seed: determines the order of the examples and which images are held out.
    num_shards: number of files per split; 0 chooses the number.
    num_processes: worker processes; 0 chooses the number, 1 writes in this process.
    strict: whether to stop at a broken image instead of skipping it.
    overwrite: whether to replace finished splits.

  Returns:
    Statistics of the splits.

  Raises:
    DatasetError: if nothing was written.
  """
  if pathlib.Path(output).resolve().is_relative_to(pathlib.Path(input).resolve()):
    raise DatasetError(f"--output {output} must be outside of --input {input}.")
  if validation_fraction and split == "validation":
    raise DatasetError("--validation_fraction needs a --split other than validation.")
  options = ImageOptions(max_pixels, verify).checked()
  folder = scan_image_folder(input)
  for warning in folder.warnings:
    print(f"Warning: {warning}", file=sys.stderr)
  members = {split: folder.files}
  if validation_fraction:
    remaining, held_out = hold_out(
      folder.files, validation_fraction, seed, _name, lambda file: file.label
    )
    members = {split: remaining, "validation": held_out}
  return write_dataset(
    output,
    {
      name: plan_split(
        name, shuffled(files, seed, _name), sum(file.num_bytes for file in files), num_shards
      )
      for name, files in members.items()
    },
    folder.class_names,
    functools.partial(_encode, root=folder.root, class_names=folder.class_names, options=options),
    num_processes=num_processes,
    strict=strict,
    overwrite=overwrite,
  )


def _name(file: ImageFile) -> str:
  return file.name


def _encode(
  file: ImageFile, root: str, class_names: tuple[str, ...], options: ImageOptions
) -> EncodedExample:
  path = os.path.join(root, file.name)
  try:
    encoded = read_bytes(path)
    return classification_example(encoded, file.label, class_names[file.label], file.name, options)
  except OSError as error:
    raise BrokenImageError(f"{path}: {error.strerror}") from error
  except BrokenImageError as error:
    raise BrokenImageError(f"{path}: {error}") from error
