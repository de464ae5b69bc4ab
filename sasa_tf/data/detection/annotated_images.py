"""Writes annotated images: TFRecords, COCO annotation files and lists of problems.

The VOC, COCO and scenes converters share this module.
"""

import collections
import dataclasses
import functools
import json
import os
import pathlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from sasa_tf.data.detection.box_stats import (
  BoxStats,
  annotation_file_name,
  box_stats,
  problems_file_name,
)
from sasa_tf.data.detection.boxes import (
  AnnotatedImage,
  Box,
  BoxClasses,
  CheckedImage,
  check_boxes,
)
from sasa_tf.data.detection.exif_boxes import BoxFrame, box_frame, turn_box
from sasa_tf.data.errors import BrokenImageError, DatasetError
from sasa_tf.data.images.options import ImageOptions
from sasa_tf.data.inputs.regular_files import read_bytes
from sasa_tf.data.inputs.values import one_line
from sasa_tf.data.tfrecord.image_example import (
  EncodedExample,
  LoadedImage,
  Problem,
  image_features,
  load_image,
  serialize,
)
from sasa_tf.data.tfrecord.output_directory import OutputDirectory
from sasa_tf.data.tfrecord.sharded_writer import DatasetSummary, write_dataset
from sasa_tf.data.tfrecord.splits import hold_out, plan_split, shuffled

_DECIMALS = 3  # Of coordinates in annotation files, in pixels.


def write_annotated_images(
  output: str | os.PathLike,
  images: Mapping[str, Sequence[AnnotatedImage]],
  classes: BoxClasses,
  *,
  problems: Mapping[str, Sequence[Problem]] | None = None,
  options: ImageOptions | None = None,
  seed: int = 0,
  num_shards: int = 0,
  num_processes: int = 0,
  strict: bool = False,
  overwrite: bool = False,
) -> DatasetSummary:
  """Writes splits of annotated images, as `write_dataset` does.

  Args:
    output: the directory to write to.
    images: {split: images}.
    classes: the classes of all boxes.
    problems: {split: invalid annotations that belong to no image}.
    options: how image files are checked and oriented. None for the default.
    seed: determines the order of the examples.
    num_shards: number of files per split; 0 chooses the number.
    num_processes: worker processes; 0 chooses the number, 1 writes in this process.
    strict: whether to stop at a broken image or an invalid annotation.
    overwrite: whether to replace finished splits.

  Returns:
    Statistics of the splits.

  Raises:
    DatasetError: if nothing was written.
  """
  problems = problems or {}
  plans = {}
  for split, of_split in images.items():
    known_problems = problems.get(split, ())
    if strict and known_problems:
      raise known_problems[0].as_error()
    num_bytes = sum(_file_size(image.path) for image in of_split)
    plan = plan_split(split, shuffled(of_split, seed, image_name), num_bytes, num_shards)
    plans[split] = dataclasses.replace(plan, problems=known_problems)
  return write_dataset(
    output,
    plans,
    classes.class_names,
    functools.partial(_encode, class_names=classes.class_names, options=options),
    hooks=BoxHooks(classes.categories),
    num_processes=num_processes,
    strict=strict,
    overwrite=overwrite,
  )


def hold_out_images(
  images: Sequence[AnnotatedImage], fraction: float, seed: int, split: str
) -> dict[str, list[AnnotatedImage]]:
  """Divides images into `split` and "validation", with boxes of every class in both.

  Each image is assigned to its rarest class, so that rare classes are held out too.

  Raises:
    DatasetError: if the fraction is not between 0 and 1, or the split is called validation.
  """
  if split == "validation":
    raise DatasetError("--validation_fraction needs a --split other than validation.")
  counts = collections.Counter(box.label for image in images for box in image.boxes)

  def rarest_label(image: AnnotatedImage) -> int:
    return min(
      (box.label for box in image.boxes), key=lambda label: (counts[label], label), default=0
    )

  usable = [image for image in images if not image.error]
  if not usable:
    raise DatasetError(
      f"none of the {len(images)} images can be converted. The first: {images[0].origin}: "
      f"{images[0].error}"
    )
  remaining, held_out = hold_out(usable, fraction, seed, image_name, rarest_label)
  remaining += (image for image in images if image.error)  # to be reported
  return {split: remaining, "validation": held_out}


def image_name(image: AnnotatedImage) -> str:
  """Returns the name by which an image is shuffled and held out."""
  return image.name


def detection_example(
  encoded: bytes,
  image: AnnotatedImage,
  class_names: Sequence[str],
  options: ImageOptions | None = None,
) -> EncodedExample:
  """Builds the tf.train.Example that Model Garden's TfExampleDecoder parses.

  Args:
    encoded: content of the image file. It is decoded once as a check, and stored unchanged unless
      its EXIF orientation requires to turn it.
    image: the annotations.
    class_names: class names in the order of their labels.
    options: how the image is checked and oriented. None for the default.

  Returns:
    The example, with its `CheckedImage` as annotations and the problems of invalid boxes.

  Raises:
    BrokenImageError: if training could not decode the image, or the annotation states another size.
  """
  options = options or ImageOptions()
  loaded = load_image(encoded, options)
  _check_annotated_size(image, loaded)
  frame = BoxFrame(loaded.height, loaded.width)
  if loaded.orientation != 1:
    frame = box_frame(image, loaded, options.exif_boxes)
  boxes, problems = check_boxes(image, frame.height, frame.width, class_names)
  if frame.orientation != 1:
    boxes = [turn_box(box, *frame[:3]) for box in boxes]
  features = image_features(loaded, image.name)
  features["image/source_id"] = [str(image.source_id).encode()]
  if boxes:
    features |= _box_features(boxes, loaded.height, loaded.width, class_names)
  checked = CheckedImage(image.source_id, image.name, loaded.height, loaded.width, tuple(boxes))
  return EncodedExample(
    serialize(features), loaded.format, tuple(problems), checked, (*loaded.notes, *frame.notes)
  )


def _check_annotated_size(image: AnnotatedImage, loaded: LoadedImage) -> None:
  """Raises `BrokenImageError` if the annotated size is neither the stored nor the displayed one."""
  if not image.size or image.size in (loaded.stored_size, (loaded.height, loaded.width)):
    return
  height, width = loaded.stored_size
  turned = loaded.stored_size != (loaded.height, loaded.width)
  displayed = f", displayed as {loaded.width}x{loaded.height}" if turned else ""
  raise BrokenImageError(
    f"the annotation is for {image.size[1]}x{image.size[0]} pixels, but the image has "
    f"{width}x{height}{displayed}: was it resized or rotated after annotation?"
  )


def _box_features(
  boxes: Sequence[Box], height: int, width: int, class_names: Sequence[str]
) -> dict[str, list[Any]]:
  return {
    "image/object/bbox/xmin": [box.xmin / width for box in boxes],
    "image/object/bbox/xmax": [box.xmax / width for box in boxes],
    "image/object/bbox/ymin": [box.ymin / height for box in boxes],
    "image/object/bbox/ymax": [box.ymax / height for box in boxes],
    "image/object/class/label": [box.label for box in boxes],
    "image/object/class/text": [class_names[box.label].encode() for box in boxes],
    "image/object/is_crowd": [int(box.is_crowd) for box in boxes],
    "image/object/area": [box.area for box in boxes],
  }


@dataclasses.dataclass(frozen=True)
class BoxHooks:
  """The `AnnotationHooks` of images with boxes.

  Attributes:
    categories: {"id": label, "name": class name} of every class.
  """

  categories: Sequence[dict[str, Any]]

  def file_names(self, split: str) -> list[str]:
    """Returns the names of the annotation file and of the list of problems."""
    return [annotation_file_name(split), problems_file_name(split)]

  def write_files(
    self,
    directory: OutputDirectory,
    split: str,
    annotations: Sequence[CheckedImage],
    problems: Sequence[Problem],
  ) -> list[str]:
    """Writes the annotation file and, if there are problems, their list; returns the names."""
    coco_file, problems_file = self.file_names(split)
    write_annotation_file(directory.staged_file(split, coco_file), annotations, self.categories)
    if not problems:
      return [coco_file]
    lines = "".join(f"{one_line(problem.message)}\n" for problem in problems)
    directory.staged_file(split, problems_file).write_bytes(
      lines.encode("utf-8", "backslashreplace")
    )
    return [coco_file, problems_file]

  def stats(self, annotations: Sequence[CheckedImage], problems: Sequence[Problem]) -> BoxStats:
    """Returns the statistics of a split."""
    return box_stats(annotations, problems, self.categories)

  def check(self, stats: Sequence[BoxStats], problems: Sequence[Problem]) -> None:
    """Raises `DatasetError` if there are annotations, but none of them is a valid box."""
    if problems and not any(count for split in stats for count in split.by_class.values()):
      raise DatasetError(
        f"none of the {len(problems)} annotations is a valid box. The first: "
        f"{problems[0].message}. Correct the annotations. Nothing was written."
      )


def write_annotation_file(
  path: str | os.PathLike, images: Iterable[CheckedImage], categories: Sequence[dict[str, Any]]
) -> None:
  """Writes a COCO instances file, which pycocotools evaluates detections against.

  Annotation ids start at 1, because pycocotools interprets a match with id 0 as no match.

  Args:
    path: the file, which is overwritten.
    images: the images as their records contain them.
    categories: {"id": label, "name": class name} of every class.
  """
  images = sorted(images, key=lambda image: image.source_id)
  sections = {
    "categories": categories,
    "images": map(_image_entry, images),
    "annotations": _annotation_entries(images),
  }
  with pathlib.Path(path).open("w", encoding="utf-8") as file:
    file.write('{"info": {"description": "written by sasa_tf"},\n"licenses": []')
    for name, entries in sections.items():
      file.write(f',\n"{name}": [')
      separator = "\n"
      for entry in entries:
        file.write(separator + json.dumps(entry))
        separator = ",\n"
      file.write("\n]")
    file.write("}\n")


def _image_entry(image: CheckedImage) -> dict[str, Any]:
  return {
    "id": image.source_id,
    "file_name": image.name,
    "height": image.height,
    "width": image.width,
  }


def _annotation_entries(images: Iterable[CheckedImage]) -> Iterator[dict[str, Any]]:
  annotation_id = 0
  for image in images:
    for box in image.boxes:
      annotation_id += 1
      width, height = box.xmax - box.xmin, box.ymax - box.ymin
      yield {
        "id": annotation_id,
        "image_id": image.source_id,
        "category_id": box.label,
        "bbox": [round(value, _DECIMALS) for value in (box.xmin, box.ymin, width, height)],
        "area": round(box.area, _DECIMALS),
        "iscrowd": int(box.is_crowd),
      }


def _encode(
  image: AnnotatedImage, class_names: Sequence[str], options: ImageOptions | None
) -> EncodedExample:
  if image.error:
    raise BrokenImageError(f"{image.origin}: {image.error}")
  try:
    return detection_example(read_bytes(image.path), image, class_names, options)
  except OSError as error:
    raise BrokenImageError(f"{image.origin}: {image.path}: {error.strerror}") from error
  except BrokenImageError as error:
    raise BrokenImageError(f"{image.path}: {error}") from error


def _file_size(path: str) -> int:
  try:
    return os.path.getsize(path)
  except OSError:
    return 0  # The error is reported when the image is encoded.
