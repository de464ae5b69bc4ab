"""The files of `predict --output`: one PNG file with drawn boxes for each image."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Sequence

from PIL import Image, PngImagePlugin

from sasa_tf.errors import UserError
from sasa_tf.outputs.path_checks import check_local_path
from sasa_tf.outputs.replacement import replace_file

# A text in the files, by which a later run recognizes that it may replace them.
_KEY, _VALUE = "Software", "sasa_tf predict"


def check_drawn_files(images: Sequence[str], output: str) -> list[pathlib.Path]:
  """Returns the file for each image; images of the same name are numbered.

  Args:
    images: paths of the image files.
    output: directory of the drawn images; may exist.

  Raises:
    UserError: a file cannot be written, or exists and was not drawn by this program.
  """
  directory = check_local_path(output, "output")
  if directory.exists() and not directory.is_dir():
    raise UserError(f"--output={output} is a file; expected a directory. Choose another path.")
  names: list[str] = []
  for image in images:
    stem = name = pathlib.Path(image).stem
    number = 1
    while name in names:
      number += 1
      name = f"{stem}_{number}"
    names.append(name)
  files = [directory / f"{name}.png" for name in names]
  for file in files:
    if os.path.lexists(file) and not _is_drawn(file):
      raise UserError(
        f"{file} exists and was not drawn by this program, so it is not replaced. Choose another "
        "--output."
      )
  return [pathlib.Path(output, file.name) for file in files]


def save_drawn(file: pathlib.Path, image: Image.Image) -> None:
  """Writes a drawn image.

  Raises:
    UserError: the file cannot be written.
  """
  text = PngImagePlugin.PngInfo()
  text.add_text(_KEY, _VALUE)
  try:
    with replace_file(file) as path:
      image.save(path, format="PNG", pnginfo=text)
  except OSError as error:
    raise UserError(
      f"--output={file.parent} cannot be written: {error}. Choose a writable directory."
    ) from error


def _is_drawn(file: pathlib.Path) -> bool:
  if file.is_symlink():
    return False
  try:
    with Image.open(file, formats=["PNG"]) as image:
      return image.info.get(_KEY) == _VALUE
  except (OSError, ValueError, SyntaxError):  # SyntaxError: a broken PNG file
    return False
