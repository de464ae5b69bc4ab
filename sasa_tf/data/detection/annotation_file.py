"""Writing COCO's instances format, which pycocotools evaluates detections against."""

import json
import os
import pathlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from sasa_tf.data.detection.boxes import CheckedImage

_DECIMALS = 3  # of a pixel


def write_annotation_file(
  path: str | os.PathLike, images: Iterable[CheckedImage], categories: Sequence[dict[str, Any]]
) -> None:
  """Writes an annotation file of the images and boxes of a split.

  Annotations are numbered from 1: pycocotools takes a match with number 0 for none.

  Args:
    path: the file, overwritten.
    images: the images as their records hold them.
    categories: {"id": label, "name": class name} for every class.
  """
  images = sorted(images, key=lambda image: image.source_id)
  sections = {
    "categories": categories,
    "images": map(_image, images),
    "annotations": _annotations(images),
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


def _image(image: CheckedImage) -> dict[str, Any]:
  return {
    "id": image.source_id,
    "file_name": image.name,
    "height": image.height,
    "width": image.width,
  }


def _annotations(images: Iterable[CheckedImage]) -> Iterator[dict[str, Any]]:
  number = 0
  for image in images:
    for box in image.boxes:
      number += 1
      width, height = box.xmax - box.xmin, box.ymax - box.ymin
      yield {
        "id": number,
        "image_id": image.source_id,
        "category_id": box.label,
        "bbox": [round(value, _DECIMALS) for value in (box.xmin, box.ymin, width, height)],
        "area": round(box.area, _DECIMALS),
        "iscrowd": int(box.is_crowd),
      }
