"""Converts Pascal VOC data sets, XML files and images, to TFRecords."""

import os
import pathlib
import re
import sys
from collections.abc import Mapping, Sequence
from typing import NamedTuple
from xml.etree import ElementTree

from sasa_tf.data.detection.annotated_images import hold_out_images, write_annotated_images
from sasa_tf.data.detection.boxes import AnnotatedImage, Box, classes_of_names, parse_classes
from sasa_tf.data.errors import DatasetError
from sasa_tf.data.tfrecord.image_example import Problem
from sasa_tf.data.tfrecord.sharded_writer import DatasetSummary
from sasa_tf.reporting import track

_SUFFIXES = (".jpg", ".jpeg", ".png")
_LAYOUT = (
  "Expected INPUT/Annotations/*.xml and INPUT/JPEGImages, or images and XML files together in "
  "INPUT, or XML files in --annotations"
)
_CORNERS = ("xmin", "ymin", "xmax", "ymax")
_SPLIT_OF_IMAGE_SET = {"train": "train", "val": "validation", "test": "test"}
# In image sets of one class: whether the image contains the class.
_CLASS_FLAG = re.compile(r"\s+-?[01]$")


class VocDataset(NamedTuple):
  """The files of a data set.

  Attributes:
    image_dir: folder of the images.
    annotation_dir: folder of the XML files.
    image_set_dir: folder of the lists of images; may not exist.
    image_files: {name without suffix: file names}.
    annotation_names: names of the XML files without suffix.
  """

  image_dir: pathlib.Path
  annotation_dir: pathlib.Path
  image_set_dir: pathlib.Path
  image_files: dict[str, list[str]]
  annotation_names: set[str]


class VocObject(NamedTuple):
  """An object of an XML file, not validated; None for what is missing."""

  class_name: str | None
  corners: tuple[float, float, float, float] | None
  difficult: bool


class VocAnnotation(NamedTuple):
  """Content of an XML file: the image's (height, width), if stated, and the objects."""

  size: tuple[int, int] | None
  objects: list[VocObject]


def convert(
  input: str | os.PathLike,
  output: str | os.PathLike,
  *,
  annotations: str | os.PathLike = "",
  classes: str = "",
  image_sets: str = "",
  split: str = "train",
  validation_fraction: float = 0.0,
  coordinate_origin: int = 1,
  seed: int = 0,
  num_shards: int = 0,
  num_processes: int = 0,
  strict: bool = False,
  overwrite: bool = False,
) -> DatasetSummary:
  """Converts images that have an XML file of the same name each.

  Objects marked difficult become crowds, which training and evaluation ignore, as VOC's evaluation
  does. Image ids are numbered from 1 in the order of the names.

  Args:
    input: folder with Annotations, JPEGImages and optionally ImageSets/Main, or folder of images
      and XML files.
    output: the directory to write to.
    annotations: folder of the XML files if it is elsewhere; `input` is then the folder of images.
    classes: comma-separated names, or a .txt file of them. Boxes of other classes are skipped.
      "" for all classes that occur, sorted.
    image_sets: lists of ImageSets/Main to convert, comma-separated, each `list` or `list:split`.
      "" for those of train, val and test that exist; val becomes "validation".
    split: name of the split if there are no image sets, or with `validation_fraction`.
    validation_fraction: fraction to write as split "validation" instead of using the image sets; 0
      uses them.
    coordinate_origin: coordinates of the first pixel in the XML files: 1, as in VOC, or 0.
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
  if coordinate_origin not in (0, 1):
    raise DatasetError(f"--coordinate_origin must be 0 or 1, received {coordinate_origin}.")
  selected = parse_classes(classes)
  dataset = find_voc_dataset(input, annotations)
  names_of_split = _split_names(dataset, image_sets, split, validation_fraction)
  names = sorted(set().union(*names_of_split.values()))
  contents = _read_annotations(dataset, names)
  found = _class_names(contents)
  box_classes = classes_of_names(selected or found)
  _report_class_selection(selected, found)
  labels = {name: label for label, name in enumerate(box_classes.class_names)}
  images = {
    name: _annotated_image(dataset, name, source_id, contents[name], labels, coordinate_origin)
    for source_id, name in enumerate(names, start=1)
  }
  if validation_fraction:
    members = hold_out_images(list(images.values()), validation_fraction, seed, split)
  else:
    members = {
      split: [images[name] for name in of_split] for split, of_split in names_of_split.items()
    }
  return write_annotated_images(
    output,
    members,
    box_classes,
    seed=seed,
    num_shards=num_shards,
    num_processes=num_processes,
    strict=strict,
    overwrite=overwrite,
  )


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
      folders = root, pathlib.Path(annotations)
    elif (root / "Annotations").is_dir():
      folders = root / "JPEGImages", root / "Annotations"
    else:
      folders = root, root
    file_names = [sorted(path.name for path in folder.iterdir()) for folder in folders]
    return _dataset_of_files(root, *folders, *file_names)
  except OSError as error:
    raise DatasetError(f"cannot read {error.filename}: {error.strerror}. {_LAYOUT}.") from error


def _dataset_of_files(
  root: pathlib.Path,
  image_dir: pathlib.Path,
  annotation_dir: pathlib.Path,
  files_of_images: Sequence[str],
  files_of_annotations: Sequence[str],
) -> VocDataset:
  image_files: dict[str, list[str]] = {}
  for name in files_of_images:
    if name.lower().endswith(_SUFFIXES) and not name.startswith("."):
      image_files.setdefault(os.path.splitext(name)[0], []).append(name)
  annotation_names = {
    os.path.splitext(name)[0]
    for name in files_of_annotations
    if name.endswith(".xml") and not name.startswith(".")
  }
  if not annotation_names:
    candidates = sorted(
      path.name
      for path in root.iterdir()
      if (path / "Annotations").is_dir() or (path.is_dir() and any(path.glob("*.xml")))
    )
    inputs = ", ".join(f"--input={root / name}" for name in candidates)
    hint = f" Convert its folders separately: {inputs}." if candidates else ""
    raise DatasetError(f"{annotation_dir} contains no XML file. {_LAYOUT}.{hint}")
  return VocDataset(
    image_dir, annotation_dir, root / "ImageSets" / "Main", image_files, annotation_names
  )


def read_image_set(dataset: VocDataset, name: str) -> list[str]:
  """Returns the image names of a list of ImageSets/Main, in order and without duplicates.

  Args:
    dataset: the data set.
    name: name of the list, without suffix.

  Raises:
    DatasetError: if the list does not exist or is empty.
  """
  path = dataset.image_set_dir / f"{name}.txt"
  try:
    lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
  except (OSError, UnicodeDecodeError) as error:
    lists = ", ".join(sorted(path.stem for path in dataset.image_set_dir.glob("*.txt"))) or "none"
    raise DatasetError(
      f"cannot read the list {path} ({error}). Existing lists: {lists}."
    ) from error
  known = dataset.annotation_names | dataset.image_files.keys()
  names = [line if line in known else _CLASS_FLAG.sub("", line) for line in lines if line]
  if not names:
    raise DatasetError(f"the list {path} is empty: expected one image name per line.")
  return list(dict.fromkeys(names))


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
  try:
    root = ElementTree.parse(path).getroot()
  except ElementTree.ParseError as error:
    raise ValueError(f"invalid XML ({error})") from error
  if root.tag != "annotation":
    raise ValueError(f"not a Pascal VOC annotation: expected <annotation>, received <{root.tag}>")
  # Some tools omit the size or write 0.
  sides = [_number(root.findtext(f"size/{side}")) for side in ("height", "width")]
  size = (int(sides[0]), int(sides[1])) if all(side and side > 0 for side in sides) else None
  return VocAnnotation(size, [_voc_object(node) for node in root.findall("object")])


def _voc_object(node: ElementTree.Element) -> VocObject:
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


def _split_names(
  dataset: VocDataset, image_sets: str, split: str, validation_fraction: float
) -> dict[str, list[str]]:
  """Returns {split: image names}, from image sets if there are any."""
  split_of_list = {}
  for entry in filter(None, (part.strip() for part in image_sets.split(","))):
    name, _, of_split = entry.partition(":")
    split_of_list[name] = of_split or _SPLIT_OF_IMAGE_SET.get(name, name)
  if not image_sets:
    existing = {path.stem for path in dataset.image_set_dir.glob("*.txt")}
    split_of_list = {name: s for name, s in _SPLIT_OF_IMAGE_SET.items() if name in existing}
  if not split_of_list:
    return {split: sorted(dataset.annotation_names | dataset.image_files.keys())}
  if split != "train" and not validation_fraction:
    raise DatasetError(
      f"--split={split} requires a data set without image sets, but {dataset.image_set_dir} has "
      f"{', '.join(split_of_list)}. Pass --image_sets=LIST:{split}."
    )
  if len(set(split_of_list.values())) < len(split_of_list):
    raise DatasetError(f"--image_sets={image_sets} names a split twice; expected one list each.")
  splits = {of_split: read_image_set(dataset, name) for name, of_split in split_of_list.items()}
  _warn_of_overlaps(splits)
  return splits


def _warn_of_overlaps(splits: Mapping[str, Sequence[str]]) -> None:
  split_of_name: dict[str, str] = {}
  for split, names in splits.items():
    for other in dict.fromkeys(split_of_name[name] for name in names if name in split_of_name):
      shared = sum(split_of_name.get(name) == other for name in names)
      print(f"Warning: images in both {other} and {split}: {shared}.", file=sys.stderr)
    split_of_name |= dict.fromkeys(names, split)


def _read_annotations(dataset: VocDataset, names: Sequence[str]) -> dict[str, VocAnnotation | str]:
  """Returns {name: content of the XML file, or why it cannot be used}."""
  contents: dict[str, VocAnnotation | str] = {}
  for name in track(names, "Reading annotations", unit="file"):
    try:
      contents[name] = read_annotation(dataset.annotation_dir / f"{name}.xml")
    except FileNotFoundError:
      contents[name] = "file not found; an image without objects needs an annotation too"
    except OSError as error:
      contents[name] = f"cannot be read: {error.strerror}"
    except ValueError as error:
      contents[name] = str(error)
  return contents


def _class_names(contents: Mapping[str, VocAnnotation | str]) -> list[str]:
  return sorted(
    {
      voc_object.class_name
      for content in contents.values()
      if isinstance(content, VocAnnotation)
      for voc_object in content.objects
      if voc_object.class_name
    }
  )


def _report_class_selection(selected: Sequence[str], found: Sequence[str]) -> None:
  if absent := [repr(name) for name in selected if name not in found]:
    print(f"Warning: no box of class {', '.join(absent)}.", file=sys.stderr)
  if selected and (others := [repr(name) for name in found if name not in selected]):
    print(f"Skipped boxes of classes not in --classes: {', '.join(others)}.", file=sys.stderr)


def _annotated_image(
  dataset: VocDataset,
  name: str,
  source_id: int,
  content: VocAnnotation | str,
  labels: Mapping[str, int],
  coordinate_origin: int,
) -> AnnotatedImage:
  origin = os.fspath(dataset.annotation_dir / f"{name}.xml")
  files = dataset.image_files.get(name, [])
  file_name = files[0] if files else name
  image = AnnotatedImage(os.fspath(dataset.image_dir / file_name), file_name, source_id, origin)
  if isinstance(content, str):
    return image._replace(error=content)
  if len(files) != 1:
    found = " and ".join(files) or "none"
    return image._replace(
      error=f"expected one image of this name in {dataset.image_dir}, found {found}"
    )
  boxes, problems = [], []
  for position, voc_object in enumerate(content.objects, start=1):
    if voc_object.class_name is None or voc_object.corners is None:
      kind = "without a class" if voc_object.class_name is None else "without a readable box"
      problems.append(Problem(kind, f"{origin}: object {position}: {kind}, dropped"))
    elif voc_object.class_name in labels:
      boxes.append(
        Box(
          *_edges(voc_object.corners, coordinate_origin),
          labels[voc_object.class_name],
          is_crowd=voc_object.difficult,
          name=f"object {position}",
        )
      )
  return image._replace(size=content.size, boxes=tuple(boxes), problems=tuple(problems))


def _edges(
  corners: tuple[float, float, float, float], coordinate_origin: int
) -> tuple[float, float, float, float]:
  """Converts coordinates of the first and last pixel to edges; invalid boxes stay unchanged."""
  xmin, ymin, xmax, ymax = corners
  if xmin < xmax and ymin < ymax:
    return xmin - coordinate_origin, ymin - coordinate_origin, xmax, ymax
  return corners
