"""Writes a few images of a data set as files, to look at."""

import os
import pathlib
import re
from collections.abc import Mapping

from sasa_tf.data.errors import DatasetError

DIRECTORY = "preview_images"


def write_preview_images(
  output: str | os.PathLike, images: Mapping[str, bytes], file_pattern: str
) -> None:
  """Replaces the preview images of a data set.

  Args:
    output: output directory of the data set; the images are in `preview_images` below it.
    images: {file name: content}.
    file_pattern: regular expression of the file names that the converter writes. Matching files
      of an earlier run are removed: with another seed they could be training images.

  Raises:
    DatasetError: if the directory is a link to another one.
  """
  directory = pathlib.Path(output) / DIRECTORY
  if directory.is_symlink():
    raise DatasetError(
      f"{directory} is a symbolic link, and this program writes only below --output. Remove the "
      "link, or pass --num_preview_images=0."
    )
  if directory.is_dir():
    for file in directory.iterdir():
      if re.fullmatch(file_pattern, file.name):
        file.unlink()
  for name, content in images.items():
    directory.mkdir(exist_ok=True)
    (directory / name).write_bytes(content)
