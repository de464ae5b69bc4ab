"""Example pictures beside a data set, as files that anyone can look at."""

import os
import pathlib
import re
from collections.abc import Mapping


def write_pictures(directory: str | os.PathLike, pictures: Mapping[str, bytes], ours: str) -> None:
  """Writes pictures in the place of those of an earlier run.

  Args:
    directory: where to write, made where there is something to write.
    pictures: {file name: content}.
    ours: regular expression of the file names that this program writes there.
  """
  directory = pathlib.Path(directory)
  if directory.is_dir():  # Pictures of another seed may be training images of this one.
    for old in directory.iterdir():
      if re.fullmatch(ours, old.name):
        old.unlink()
  for name, content in pictures.items():
    directory.mkdir(exist_ok=True)
    (directory / name).write_bytes(content)
