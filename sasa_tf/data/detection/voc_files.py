"""Finding and reading the files of a Pascal VOC data set."""

import os
import pathlib
import re
from collections.abc import Sequence
from typing import NamedTuple
from xml.etree import ElementTree

from sasa_tf.data.errors import DatasetError

_SUFFIXES = (".jpg", ".jpeg", ".png")
_LAYOUT = (
  "Expected INPUT/Annotations/*.xml and INPUT/JPEGImages, or the pictures and their XML files "
  "together in INPUT, or the XML files in --annotations"
)
_CORNERS = ("xmin", "ymin", "xmax", "ymax")
_FLAG = re.compile(r"\s+-?[01]$")  # of lists of one class: whether it is in the picture


class VocFolder(NamedTuple):
  """Where the files of a data set are.

  Attributes:
    pictures: folder of the pictures.
    annotations: folder of the XML files.
    lists: folder of the lists of images, which need not exist.
    picture_names: {name without suffix: file names}.
    annotation_names: names of the XML files, without suffix.
  """

  pictures: pathlib.Path
  annotations: pathlib.Path
  lists: pathlib.Path
  picture_names: dict[str, list[str]]
  annotation_names: set[str]


class VocObject(NamedTuple):
  """An object of an XML file, as it stands there; None where it does not."""

  class_name: str | None
  corners: tuple[float, float, float, float] | None
  difficult: bool


class VocAnnotation(NamedTuple):
  """An XML file: (height, width) that it claims, and its objects."""

  size: tuple[int, int] | None
  objects: list[VocObject]


def find_voc(root: str | os.PathLike, annotations: str | os.PathLike = "") -> VocFolder:
  """Finds pictures, XML files and lists without opening them.

  Args:
    root: the data set's folder, or the pictures'.
    annotations: folder of the XML files where they are elsewhere.

  Returns:
    Where they are.

  Raises:
    DatasetError: a folder cannot be read, or there is no XML file.
  """
  root = pathlib.Path(root)
  try:
    if annotations:
      folders = root, pathlib.Path(annotations)
    elif (root / "Annotations").is_dir():
      folders = root / "JPEGImages", root / "Annotations"
    else:
      folders = root, root
    names = [sorted(path.name for path in folder.iterdir()) for folder in folders]
    return _found(root, *folders, *names)
  except OSError as error:
    raise DatasetError(f"cannot read {error.filename}: {error.strerror}. {_LAYOUT}.") from error


def _found(
  root: pathlib.Path,
  pictures: pathlib.Path,
  annotations: pathlib.Path,
  names_of_pictures: Sequence[str],
  names_of_annotations: Sequence[str],
) -> VocFolder:
  picture_names: dict[str, list[str]] = {}
  for name in names_of_pictures:
    if name.lower().endswith(_SUFFIXES) and not name.startswith("."):
      picture_names.setdefault(os.path.splitext(name)[0], []).append(name)
  annotation_names = {
    os.path.splitext(name)[0]
    for name in names_of_annotations
    if name.endswith(".xml") and not name.startswith(".")
  }
  if not annotation_names:
    below = sorted(
      path.name
      for path in root.iterdir()
      if (path / "Annotations").is_dir() or (path.is_dir() and any(path.glob("*.xml")))
    )
    hint = f" Convert its folders one at a time: {_inputs(root, below)}." if below else ""
    raise DatasetError(f"{annotations} holds no XML file. {_LAYOUT}.{hint}")
  return VocFolder(
    pictures, annotations, root / "ImageSets" / "Main", picture_names, annotation_names
  )


def _inputs(root: pathlib.Path, names: Sequence[str]) -> str:
  return ", ".join(f"--input={root / name}" for name in names)


def read_list(folder: VocFolder, name: str) -> list[str]:
  """Reads the names of images in a list, in its order, each once.

  Args:
    folder: the data set.
    name: name of the list, without suffix.

  Returns:
    The names, without suffix.

  Raises:
    DatasetError: there is no such list, or it is empty.
  """
  path = folder.lists / f"{name}.txt"
  try:
    lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
  except (OSError, UnicodeDecodeError) as error:
    there = ", ".join(sorted(path.stem for path in folder.lists.glob("*.txt"))) or "none"
    raise DatasetError(f"cannot read the list {path} ({error}). Lists there: {there}.") from error
  known = folder.annotation_names | folder.picture_names.keys()
  names = [line if line in known else _FLAG.sub("", line) for line in lines if line]
  if not names:
    raise DatasetError(f"the list {path} is empty: expected one image name a line.")
  return list(dict.fromkeys(names))


def read_annotation(path: str | os.PathLike) -> VocAnnotation:
  """Reads an XML file.

  Args:
    path: the file.

  Returns:
    What it says; objects without a readable box or class included.

  Raises:
    ValueError: it is no annotation in the format of Pascal VOC; says why.
    OSError: it cannot be read.
  """
  try:
    root = ElementTree.parse(path).getroot()
  except ElementTree.ParseError as error:
    raise ValueError(f"damaged XML ({error})") from error
  if root.tag != "annotation":
    raise ValueError(f"no annotation of Pascal VOC: <{root.tag}> where <annotation> was expected")
  return VocAnnotation(_size(root), [_object(node) for node in root.findall("object")])


def _size(root: ElementTree.Element) -> tuple[int, int] | None:
  """Returns (height, width); some tools leave them out or write 0."""
  numbers = [_number(root.findtext(f"size/{side}")) for side in ("height", "width")]
  return (int(numbers[0]), int(numbers[1])) if all(n and n > 0 for n in numbers) else None


def _object(node: ElementTree.Element) -> VocObject:
  corners = [_number(node.findtext(f"bndbox/{corner}")) for corner in _CORNERS]
  return VocObject(
    (node.findtext("name") or "").strip() or None,
    None if None in corners else tuple(corners),
    bool(_number(node.findtext("difficult"))),
  )


def _number(text: str | None) -> float | None:
  try:
    return float(text or "")
  except ValueError:
    return None
