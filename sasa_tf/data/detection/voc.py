"""Converts Pascal VOC data sets, XML files and images, to TFRecords."""

import os
import sys
from collections.abc import Mapping, Sequence

from sasa_tf.data.detection.annotated_images import hold_out_images, write_annotated_images
from sasa_tf.data.detection.boxes import AnnotatedImage, Box, classes_of_names, parse_classes
from sasa_tf.data.detection.voc_files import (
  VocAnnotation,
  VocDataset,
  VocObject,
  find_voc_dataset,
  read_annotation,
  read_image_set,
)
from sasa_tf.data.errors import DatasetError
from sasa_tf.data.images.options import MAX_PIXELS, ImageOptions
from sasa_tf.data.inputs.junk_files import junk_warning
from sasa_tf.data.tfrecord.image_example import Problem
from sasa_tf.data.tfrecord.sharded_writer import DatasetSummary
from sasa_tf.reporting import track

_SPLIT_OF_IMAGE_SET = {"train": "train", "val": "validation", "test": "test"}


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
  exif_boxes: str = "displayed",
  max_pixels: int = MAX_PIXELS,
  verify: str = "decode",
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
    exif_boxes: what boxes of an image with an EXIF orientation refer to if the annotated size does
      not decide: the "displayed" image, or the "stored" pixels.
    max_pixels: images with more pixels are skipped without decoding them.
    verify: "decode" or "full", see `ImageOptions`.
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
  options = ImageOptions(max_pixels, verify, exif_boxes).checked()
  selected = parse_classes(classes)
  dataset = find_voc_dataset(input, annotations)
  if dataset.junk:
    print(f"Warning: {junk_warning(dataset.junk)}", file=sys.stderr)
  names_of_split = _split_names(dataset, image_sets, split, validation_fraction)
  names = sorted(set().union(*names_of_split.values()))
  contents = _read_annotations(dataset, names)
  found = _class_names(contents)
  if not selected and not found:
    _check_readable(dataset, contents)
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
    options=options,
    seed=seed,
    num_shards=num_shards,
    num_processes=num_processes,
    strict=strict,
    overwrite=overwrite,
  )


def _split_names(
  dataset: VocDataset, image_sets: str, split: str, validation_fraction: float
) -> dict[str, list[str]]:
  """Returns {split: image names}, from image sets if there are any."""
  split_of_list = {}
  for entry in filter(None, (part.strip() for part in image_sets.split(","))):
    name, _, of_split = entry.partition(":")
    split_of_list[name] = of_split or _SPLIT_OF_IMAGE_SET.get(name, name)
  if not image_sets:
    split_of_list = {n: s for n, s in _SPLIT_OF_IMAGE_SET.items() if n in dataset.image_sets}
  if not split_of_list:
    return {split: sorted(dataset.names)}
  if split != "train" and not validation_fraction:
    raise DatasetError(
      f"--split={split} requires a data set without image sets, but ImageSets/Main has "
      f"{', '.join(split_of_list)}. Pass --image_sets=LIST:{split}."
    )
  if len(set(split_of_list.values())) < len(split_of_list):
    raise DatasetError(f"--image_sets={image_sets} names a split twice; expected one list each.")
  splits = {}
  for name, of_split in split_of_list.items():
    splits[of_split], shortened = read_image_set(dataset, name)
    if shortened:
      line, image = next(iter(shortened.items()))
      print(
        f"Image set {name}: names with a path or suffix, which was removed: {len(shortened)}. "
        f"The first: {line!r} is {image!r}.",
        file=sys.stderr,
      )
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
    files = dataset.annotation_files.get(name, [])
    try:
      if len(files) == 1:
        contents[name] = read_annotation(dataset.annotation_dir / files[0])
      elif files:
        contents[name] = f"expected one XML file of this name, found {' and '.join(files)}"
      else:
        contents[name] = "file not found; an image without objects needs an annotation too"
    except OSError as error:
      contents[name] = f"cannot be read: {error.strerror}"
    except ValueError as error:
      contents[name] = str(error)
  return contents


def _annotation_path(dataset: VocDataset, name: str) -> str:
  """Returns the path of the XML file of an image, which may be missing."""
  files = dataset.annotation_files.get(name, [f"{name}.xml"])
  return os.fspath(dataset.annotation_dir / files[0])


def _check_readable(dataset: VocDataset, contents: Mapping[str, VocAnnotation | str]) -> None:
  """Raises DatasetError if annotations cannot be used, which may be why there are no classes."""
  problems = [
    f"{_annotation_path(dataset, name)}: {found}"
    for name, found in contents.items()
    if isinstance(found, str)
  ]
  if problems:
    raise DatasetError(
      f"there are no classes: {len(problems)} of {len(contents)} annotations cannot be used, and "
      f"no other one has a box. The first: {problems[0]}. Correct them, or pass --classes."
    )


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
  origin = _annotation_path(dataset, name)
  files = dataset.image_files.get(name, [])
  path = os.fspath(dataset.image_dir / files[0]) if files else ""
  image = AnnotatedImage(path, files[0] if files else name, source_id, origin)
  if isinstance(content, str):
    return image._replace(error=content)
  if len(files) != 1:
    found = " and ".join(files) or "none"
    return image._replace(
      error=f"expected one image of this name in {dataset.image_dir}, found {found}"
    )
  boxes, problems = [], []
  if content.invalid_size:
    kind = "with an invalid size"
    problems.append(Problem(kind, f"{origin}: {kind}, {content.invalid_size}, ignored"))
  for position, voc_object in enumerate(content.objects, start=1):
    if kind := _invalid(voc_object):
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


def _invalid(voc_object: VocObject) -> str | None:
  """Returns the kind of problem of an object that cannot become a box."""
  if voc_object.class_name is None:
    return "without a class"
  if voc_object.corners is None:
    return "without a readable box"
  return "with an invalid difficult flag" if voc_object.difficult is None else None


def _edges(
  corners: tuple[float, float, float, float], coordinate_origin: int
) -> tuple[float, float, float, float]:
  """Converts coordinates of the first and last pixel to edges; invalid boxes stay unchanged."""
  xmin, ymin, xmax, ymax = corners
  if xmin < xmax and ymin < ymax:
    return xmin - coordinate_origin, ymin - coordinate_origin, xmax, ymax
  return corners
