"""Pascal VOC's XML files and pictures to TFRecords."""

import os
import sys
from collections.abc import Mapping, Sequence

import tqdm

from sasa_tf.data.detection.annotated_images import hold_out_images, write_annotated_images
from sasa_tf.data.detection.box_classes import numbered_classes, parse_classes
from sasa_tf.data.detection.boxes import AnnotatedImage, Box, Problem
from sasa_tf.data.detection.voc_files import (
  VocAnnotation,
  VocFolder,
  find_voc,
  read_annotation,
  read_list,
)
from sasa_tf.data.errors import DatasetError
from sasa_tf.data.tfrecord.sharded_writer import DatasetSummary

_SPLITS_OF_LISTS = {"train": "train", "val": "validation", "test": "test"}


def convert(
  input: str | os.PathLike,
  output: str | os.PathLike,
  *,
  annotations: str | os.PathLike = "",
  classes: str = "",
  image_sets: str = "",
  split: str = "train",
  validation_fraction: float = 0.0,
  first_pixel: int = 1,
  seed: int = 0,
  num_shards: int = 0,
  num_processes: int = 0,
  strict: bool = False,
  overwrite: bool = False,
) -> DatasetSummary:
  """Converts pictures and an XML file of the same name for each.

  Objects marked difficult become crowds: neither trained on nor counted, as in VOC's evaluation.
  Images are numbered from 1 in the order of their names.

  Args:
    input: folder with Annotations, JPEGImages and maybe ImageSets/Main, or one of pictures and XML
      files.
    output: where to write.
    annotations: folder of the XML files where they are elsewhere; `input` is the pictures' then.
    classes: names separated by commas, or a .txt file of them; boxes of other classes are left
      out. "" for all that occur, sorted.
    image_sets: lists of ImageSets/Main to convert, as `list` or `list:split` and separated by
      commas. "" for those of train, val and test that are there, val becoming "validation".
    split: name of the split where there are no lists, or with validation_fraction.
    validation_fraction: share to write as split "validation", whatever the lists say; 0 for none.
    first_pixel: number of the first pixel in the XML files: 1, as in VOC, or 0.
    seed: another seed shuffles and holds out otherwise.
    num_shards: files a split, 0 for automatic.
    num_processes: worker processes, 0 for automatic, 1 for this process.
    strict: whether a broken image or a faulty annotation is fatal rather than left out.
    overwrite: whether to replace finished splits.

  Returns:
    Figures of the splits.

  Raises:
    DatasetError: nothing was written, and why.
  """
  if first_pixel not in (0, 1):
    raise DatasetError(f"--first_pixel must be 0 or 1, received {first_pixel}.")
  chosen = parse_classes(classes)
  folder = find_voc(input, annotations)
  names = _names(folder, image_sets, split, validation_fraction)
  everything = sorted(set().union(*names.values()))
  contents = _read(folder, everything)
  found = sorted(
    {
      thing.class_name
      for content in contents.values()
      if isinstance(content, VocAnnotation)
      for thing in content.objects
      if thing.class_name
    }
  )
  box_classes = numbered_classes(chosen or found)
  _tell_of_classes(chosen, found)
  labels = {name: label for label, name in enumerate(box_classes.labels)}
  images = {
    name: _image(folder, name, number, contents[name], labels, first_pixel)
    for number, name in enumerate(everything, start=1)
  }
  if validation_fraction:
    members = hold_out_images(list(images.values()), validation_fraction, seed, split)
  else:
    members = {name: [images[stem] for stem in stems] for name, stems in names.items()}
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


def _names(
  folder: VocFolder, image_sets: str, split: str, validation_fraction: float
) -> dict[str, list[str]]:
  """Returns {split: names of images}, of the lists or of all there is."""
  lists = {}
  for entry in filter(None, (part.strip() for part in image_sets.split(","))):
    name, _, of_split = entry.partition(":")
    lists[name] = of_split or _SPLITS_OF_LISTS.get(name, name)
  if not image_sets:
    there = {path.stem for path in folder.lists.glob("*.txt")}
    lists = {name: of_split for name, of_split in _SPLITS_OF_LISTS.items() if name in there}
  if not lists:
    return {split: sorted(folder.annotation_names | folder.picture_names.keys())}
  if split != "train" and not validation_fraction:
    raise DatasetError(
      f"--split={split} needs images without lists; {folder.lists} has {', '.join(lists)}. Pass "
      f"--image_sets=LIST:{split}."
    )
  if len(set(lists.values())) < len(lists):
    raise DatasetError(f"--image_sets={image_sets} names a split twice; expected one list a split.")
  splits = {of_split: read_list(folder, name) for name, of_split in lists.items()}
  _warn_of_overlaps(splits)
  return splits


def _warn_of_overlaps(splits: Mapping[str, Sequence[str]]) -> None:
  seen: dict[str, str] = {}
  for split, names in splits.items():
    for other in dict.fromkeys(seen[name] for name in names if name in seen):
      shared = sum(seen.get(name) == other for name in names)
      print(f"Warning: images in both {other} and {split}: {shared}.", file=sys.stderr)
    seen |= dict.fromkeys(names, split)


def _tell_of_classes(chosen: Sequence[str], found: Sequence[str]) -> None:
  if absent := [repr(name) for name in chosen if name not in found]:
    print(f"Warning: no box of class {', '.join(absent)}.", file=sys.stderr)
  if chosen and (others := [repr(name) for name in found if name not in chosen]):
    print(f"Left out, as --classes says: boxes of {', '.join(others)}.", file=sys.stderr)


def _read(folder: VocFolder, names: Sequence[str]) -> dict[str, VocAnnotation | str]:
  """Returns {name: what its XML file says, or why it says nothing}."""
  contents: dict[str, VocAnnotation | str] = {}
  for name in tqdm.tqdm(names, desc="Reading annotations", unit=" files", delay=1, leave=False):
    try:
      contents[name] = read_annotation(folder.annotations / f"{name}.xml")
    except FileNotFoundError:
      contents[name] = "no such annotation, not even one without objects"
    except OSError as error:
      contents[name] = f"cannot be read: {error.strerror}"
    except ValueError as error:
      contents[name] = str(error)
  return contents


def _image(
  folder: VocFolder,
  name: str,
  number: int,
  content: VocAnnotation | str,
  labels: Mapping[str, int],
  first_pixel: int,
) -> AnnotatedImage:
  origin = os.fspath(folder.annotations / f"{name}.xml")
  pictures = folder.picture_names.get(name, [])
  path = os.fspath(folder.pictures / (pictures or [name])[0])
  unread = AnnotatedImage(path, (pictures or [name])[0], number, origin)
  if isinstance(content, str):
    return unread._replace(fault=content)
  if len(pictures) != 1:
    found = " and ".join(pictures) or "no picture"
    return unread._replace(fault=f"{found} of that name in {folder.pictures}; expected one picture")
  boxes, problems = [], []
  for position, thing in enumerate(content.objects, start=1):
    if thing.class_name is None or thing.corners is None:
      kind = "without a class" if thing.class_name is None else "without a readable box"
      problems.append(Problem(kind, f"{origin}: object {position}: {kind}, dropped"))
    elif thing.class_name in labels:
      boxes.append(
        Box(
          *_edges(thing.corners, first_pixel),
          labels[thing.class_name],
          is_crowd=thing.difficult,
          name=f"object {position}",
        )
      )
  return unread._replace(size=content.size, boxes=tuple(boxes), problems=tuple(problems))


def _edges(
  corners: tuple[float, float, float, float], first_pixel: int
) -> tuple[float, float, float, float]:
  """Turns the first and the last pixel into edges, but no stray click into a pixel."""
  xmin, ymin, xmax, ymax = corners
  if xmin < xmax and ymin < ymax:
    return xmin - first_pixel, ymin - first_pixel, xmax, ymax
  return corners
