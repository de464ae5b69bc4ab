"""Finds the images of a directory with one folder per class."""

import collections
import os
import shlex
from collections.abc import Iterator
from typing import NamedTuple

from sasa_tf.data.errors import DatasetError
from sasa_tf.data.inputs.junk_files import is_junk, junk_warning

_SUFFIXES = (".jpg", ".jpeg", ".png")
_LAYOUT = "Expected one folder per class: <input>/<class>/.../<image>.{jpg,jpeg,png}"
_SPLIT_NAMES = {"train", "training", "test", "testing", "val", "valid", "validation", "eval"}


class ImageFile(NamedTuple):
  """An image file; the name is its path relative to the root, with / as separator."""

  name: str
  label: int
  num_bytes: int


class ImageFolder(NamedTuple):
  """Content of a root directory; the label of a class is its index in `class_names`.

  A class has the name of its folder without surrounding white space.
  """

  root: str
  class_names: tuple[str, ...]
  files: list[ImageFile]
  warnings: list[str]


def scan_image_folder(root: str | os.PathLike) -> ImageFolder:
  """Lists the images of a root directory without opening them.

  Hidden files and folders, and those that systems leave behind, are ignored and reported; symbolic
  links are followed.

  Args:
    root: the directory of the class folders.

  Returns:
    Its classes and images, and warnings about other files.

  Raises:
    DatasetError: if the directory cannot be read, or does not have one folder per class.
  """
  root = os.fspath(root)
  try:
    folder, num_loose = _scan(root)
  except OSError as error:
    raise DatasetError(f"cannot read {error.filename}: {error.strerror}. {_LAYOUT}.") from error
  if not folder.class_names:
    found = f"{num_loose} images but no folders" if num_loose else "no folders"
    raise DatasetError(f"{root} contains {found}. {_LAYOUT}.")
  if not folder.files:
    raise DatasetError(
      f"the {len(folder.class_names)} folders of {root} contain no images. {_LAYOUT}."
    )
  _check_folders_are_classes(folder)
  if _all_nested(folder):
    first = os.path.join(root, folder.files[0].name.partition("/")[0])
    which = "the only class folder" if len(folder.class_names) == 1 else "the class folders"
    folder.warnings.append(
      f"all images are in folders of {which}. If these are the classes, pass "
      f"--input={shlex.quote(first)}."
    )
  return folder


def _scan(root: str) -> tuple[ImageFolder, int]:
  files: list[ImageFile] = []
  junk: list[str] = []
  classes, loose, other, special = [], 0, 0, 0
  for entry in _entries(root, junk):
    if entry.is_dir():
      classes.append(entry.name)
    elif _is_image(entry):
      loose += 1
    elif _is_special(entry):
      special += 1
    else:
      other += 1
  for label, class_name in enumerate(classes):
    folder, parents = os.path.join(root, class_name), (os.path.realpath(root),)
    for name, entry in _walk(folder, class_name, parents, junk):
      if _is_image(entry):
        files.append(ImageFile(name, label, _size(entry)))
      elif _is_special(entry):
        special += 1
      else:
        other += 1
  sizes = collections.Counter(file.label for file in files)
  empty = [repr(name) for label, name in enumerate(classes) if not sizes[label]]
  warnings = []
  if empty:
    warnings.append(f"no images in class folder {', '.join(empty)}; the class still has a label.")
  if junk:
    warnings.append(junk_warning(junk))
  if loose:
    warnings.append(f"ignored images directly in {root}, which have no class: {loose}.")
  if other:
    warnings.append(f"ignored files with a suffix other than {', '.join(_SUFFIXES)}: {other}.")
  if special:
    warnings.append(f"ignored pipes, sockets and devices: {special}.")
  return ImageFolder(root, tuple(name.strip() for name in classes), files, warnings), loose


def _walk(
  directory: str, prefix: str, parents: tuple[str, ...], junk: list[str]
) -> Iterator[tuple[str, os.DirEntry[str]]]:
  """Yields the files below a directory with their names; skips links to parent directories.

  Appends the names of ignored files and folders to `junk`.
  """
  here = os.path.realpath(directory)
  if here in parents:
    return
  for entry in _entries(directory, junk):
    name = f"{prefix}/{entry.name}"
    if entry.is_dir():
      yield from _walk(entry.path, name, (*parents, here), junk)
    else:
      yield name, entry


def _entries(directory: str, junk: list[str]) -> list[os.DirEntry[str]]:
  with os.scandir(directory) as entries:
    entries_by_name = sorted(entries, key=lambda entry: entry.name)
  junk += (entry.name for entry in entries_by_name if is_junk(entry.name))
  return [entry for entry in entries_by_name if not is_junk(entry.name)]


def _is_image(entry: os.DirEntry[str]) -> bool:
  """Whether to convert a file; true for broken links, so that they are reported."""
  is_candidate = entry.is_file() or not os.path.exists(entry.path)
  return is_candidate and entry.name.lower().endswith(_SUFFIXES)


def _is_special(entry: os.DirEntry[str]) -> bool:
  """Whether a file is a pipe, socket or device, which reading may never end."""
  return os.path.exists(entry.path) and not entry.is_file()


def _size(entry: os.DirEntry[str]) -> int:
  try:
    return entry.stat().st_size
  except OSError:
    return 0  # Broken link.


def _all_nested(folder: ImageFolder) -> bool:
  return all(file.name.count("/") > 1 for file in folder.files)


def _check_folders_are_classes(folder: ImageFolder) -> None:
  if _all_nested(folder) and {name.lower() for name in folder.class_names} <= _SPLIT_NAMES:
    paths = (os.path.join(folder.root, name) for name in folder.class_names)
    inputs = ", ".join(f"--input={shlex.quote(path)}" for path in paths)
    raise DatasetError(
      f"the folders of {folder.root} are splits, not classes. Convert them separately ({inputs}), "
      "with --split=train or --split=validation."
    )
  if split := _split_of_data_sets(folder):
    raise DatasetError(
      f"the folders of {folder.root} are data sets with splits, not classes. Convert each split "
      f"separately (--input={shlex.quote(os.path.join(folder.root, split))}), with --split=train "
      "or --split=validation, each data set to an --output of its own."
    )


def _split_of_data_sets(folder: ImageFolder) -> str | None:
  """Returns the first folder of a split, if the folders are data sets of <split>/<class>/<image>.

  A folder <split> of images, without classes, is a part of a class.
  """
  splits = {}
  for file in folder.files:
    data_set, *parents, _ = file.name.split("/")
    if len(parents) < 2 or parents[0].lower() not in _SPLIT_NAMES:
      return None
    splits[f"{data_set}/{parents[0]}"] = True
  return next(iter(splits))
