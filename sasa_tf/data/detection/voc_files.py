"""Finds and reads the files of Pascal VOC data sets: XML files, images and image sets."""

import os
import pathlib
import re
import shlex
import unicodedata
from collections.abc import Container, Sequence
from typing import NamedTuple
from xml.etree import ElementTree

from sasa_tf.data.errors import DatasetError
from sasa_tf.data.inputs.junk_files import is_junk
from sasa_tf.data.inputs.text_files import read_lines
from sasa_tf.data.inputs.values import MAX_SIDE, as_flag, as_integer, as_name, parse_number, shown
from sasa_tf.data.inputs.xml_files import read_xml

_IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")
_LAYOUT = (
  "Expected INPUT/Annotations/*.xml and INPUT/JPEGImages, or images and XML files together in "
  "INPUT, or XML files in --annotations"
)
_CORNERS = ("xmin", "ymin", "xmax", "ymax")
# In image sets of one class: whether the image contains the class.
_CLASS_FLAG = re.compile(r"\s+-?[01]$")


class VocDataset(NamedTuple):
  """The files of a data set. Their names are in Unicode's normal form C, whatever the disk has.

  Attributes:
    image_dir: folder of the images.
    annotation_dir: folder of the XML files.
    image_sets: {name: file} of the lists of images.
    image_files: {name without suffix: file names}.
    annotation_files: {name without suffix: file names} of the XML files.
    junk: names in these folders that were ignored.
  """

  image_dir: pathlib.Path
  annotation_dir: pathlib.Path
  image_sets: dict[str, pathlib.Path]
  image_files: dict[str, list[str]]
  annotation_files: dict[str, list[str]]
  junk: list[str]

  @property
  def names(self) -> set[str]:
    """Names of all images and XML files, without suffix."""
    return self.annotation_files.keys() | self.image_files.keys()


class ImageSet(NamedTuple):
  """Names of a list, in order and without duplicates; {line: name} of those with suffix or path."""

  names: list[str]
  shortened: dict[str, str]


class VocObject(NamedTuple):
  """An object of an XML file, not validated; None for what is missing or invalid."""

  class_name: str | None
  corners: tuple[float, float, float, float] | None
  difficult: bool | None


class VocAnnotation(NamedTuple):
  """Content of an XML file.

  Attributes:
    size: the image's (height, width), None if it is not stated or invalid.
    objects: the objects.
    invalid_size: what is stated instead of a valid size, None if the size is valid or missing.
  """

  size: tuple[int, int] | None
  objects: list[VocObject]
  invalid_size: str | None = None


def find_voc_dataset(root: str | os.PathLike, annotations: str | os.PathLike = "") -> VocDataset:
  """Finds images, XML files and image sets without opening them.

  Args:
    root: folder of the data set, or of the images.
    annotations: folder of the XML files if it is elsewhere.

  Returns:
    The files.

  Raises:
    DatasetError: if a folder cannot be read, or there is no XML file.
  """
  root = pathlib.Path(root)
  try:
    if annotations:
      image_dir, annotation_dir = root, pathlib.Path(annotations)
    elif (root / "Annotations").is_dir():
      image_dir, annotation_dir = root / "JPEGImages", root / "Annotations"
    else:
      image_dir = annotation_dir = root
    image_names, annotation_names = (
      sorted(path.name for path in folder.iterdir()) for folder in (image_dir, annotation_dir)
    )
    annotation_files = _by_stem(annotation_names, (".xml",))
    if not annotation_files:
      raise DatasetError(f"{annotation_dir} contains no XML file. {_LAYOUT}.{_other_inputs(root)}")
    return VocDataset(
      image_dir,
      annotation_dir,
      _image_set_files(root / "ImageSets" / "Main"),
      _by_stem(image_names, _IMAGE_SUFFIXES),
      annotation_files,
      [name for name in sorted({*image_names, *annotation_names}) if is_junk(name)],
    )
  except OSError as error:
    raise DatasetError(f"cannot read {error.filename}: {error.strerror}. {_LAYOUT}.") from error


def _by_stem(file_names: Sequence[str], suffixes: tuple[str, ...]) -> dict[str, list[str]]:
  """Returns {name without suffix: file names} of the files with one of the suffixes."""
  found: dict[str, list[str]] = {}
  for name in file_names:
    if name.lower().endswith(suffixes) and not is_junk(name):
      found.setdefault(_normalized(os.path.splitext(name)[0]), []).append(name)
  return found


def _normalized(name: str) -> str:
  """Returns one form of names that macOS decomposes and other systems do not."""
  return unicodedata.normalize("NFC", name)


def _image_set_files(folder: pathlib.Path) -> dict[str, pathlib.Path]:
  if not folder.is_dir():
    return {}
  files = sorted(path for path in folder.iterdir() if not is_junk(path.name))
  return {path.stem: path for path in files if path.suffix.lower() == ".txt"}


def _other_inputs(root: pathlib.Path) -> str:
  """Returns a hint that names the folders of `root` that are data sets."""
  folders = sorted(
    path.name
    for path in root.iterdir()
    if not is_junk(path.name)
    and ((path / "Annotations").is_dir() or (path.is_dir() and any(path.glob("*.[xX][mM][lL]"))))
  )
  inputs = ", ".join(f"--input={shlex.quote(str(root / name))}" for name in folders)
  return f" Convert its folders separately: {inputs}." if folders else ""


def read_image_set(dataset: VocDataset, name: str) -> ImageSet:
  """Reads a list of ImageSets/Main: names, file names or paths, with or without a class flag.

  Args:
    dataset: the data set.
    name: name of the list, without suffix.

  Raises:
    DatasetError: if the list does not exist, cannot be read or is empty.
  """
  if name not in dataset.image_sets:
    lists = ", ".join(sorted(dataset.image_sets)) or "none"
    raise DatasetError(f"there is no list ImageSets/Main/{name}.txt. Existing lists: {lists}.")
  path = dataset.image_sets[name]
  known = dataset.names
  names, shortened = [], {}
  for line in filter(None, read_lines(path, "image name")):
    names.append(_image_name(line, known))
    if names[-1] not in (_normalized(line), _CLASS_FLAG.sub("", _normalized(line))):
      shortened[line] = names[-1]
  if not names:
    raise DatasetError(f"the list {path} is empty: expected one image name per line.")
  return ImageSet(list(dict.fromkeys(names)), shortened)


def _image_name(line: str, known: Container[str]) -> str:
  """Returns the name that a line of an image set means, without path and suffix."""
  line = _normalized(line)
  candidates = [line, _CLASS_FLAG.sub("", line)]
  for candidate in tuple(candidates):
    file_name = candidate.replace("\\", "/").rpartition("/")[2]
    stem, suffix = os.path.splitext(file_name)
    candidates += [file_name, stem if suffix.lower() in (*_IMAGE_SUFFIXES, ".xml") else file_name]
  return next((candidate for candidate in candidates if candidate in known), candidates[-1])


def read_annotation(path: str | os.PathLike) -> VocAnnotation:
  """Reads an XML file.

  Args:
    path: the file.

  Returns:
    Its content, including objects without a readable box or class.

  Raises:
    ValueError: if it is not an annotation in Pascal VOC's format.
    OSError: if it cannot be read.
  """
  root = read_xml(path)
  if root.tag != "annotation":
    raise ValueError(
      f"not a Pascal VOC annotation: expected <annotation>, received <{shown(root.tag)[1:-1]}>"
    )
  objects = [_voc_object(node) for node in root.findall("object")]
  # Some tools omit the size or write 0.
  texts = [(root.findtext(f"size/{side}") or "").strip() for side in ("height", "width")]
  height, width = (as_integer(parse_number(text or "0"), 0, MAX_SIDE) for text in texts)
  if height is None or width is None:
    return VocAnnotation(None, objects, shown(" x ".join(reversed(texts)))[1:-1])
  return VocAnnotation((height, width) if height and width else None, objects)


def _voc_object(node: ElementTree.Element) -> VocObject:
  corners = [parse_number(node.findtext(f"bndbox/{corner}")) for corner in _CORNERS]
  return VocObject(
    as_name(node.findtext("name")),
    None if None in corners else tuple(corners),
    as_flag(node.findtext("difficult")),
  )
