"""Recognizes boxes that are not fractions of the image, which no step of a training reports."""

from __future__ import annotations

import math
from collections.abc import Sequence

from sasa_tf.data.errors import DatasetError
from sasa_tf.data.integrity.record_sample import SampledRecord, sample_records

_CORNERS = ("xmin", "ymin", "xmax", "ymax")
_LABELS = "image/object/class/label"
# Boxes partly outside of the image are clipped; pixel coordinates are larger.
_LOWEST, _HIGHEST = -1.0, 2.0


def check_boxes(files: Sequence[str], compression: str = "") -> None:
  """Raises `DatasetError` if most boxes are in pixels, swapped, not finite, or without a label.

  Single invalid boxes are not reported: Model Garden ignores them.

  Args:
    files: paths of TFRecord files; the first records of some of them are read.
    compression: "" or "GZIP".
  """
  total, invalid, first = 0, 0, ""
  for record in sample_records(files, compression):
    boxes, problems = _examine(record)
    total, invalid = total + boxes, invalid + len(problems)
    if problems and not first:
      first = f"{record}: {problems[0]}"
  if invalid > total / 2:
    raise DatasetError(
      f"{invalid} of the first {total} boxes cannot be used; the first one is in {first}. Expected "
      f"image/object/bbox/{{{','.join(_CORNERS)}}} as fractions of the image's width and height, "
      f"with xmin < xmax and ymin < ymax, and one {_LABELS} per box. Write the TFRecords again; "
      "make_tfrecords divides pixels by the size of the image."
    )


def _examine(record: SampledRecord) -> tuple[int, list[str]]:
  """Returns the number of boxes of a record and the problems of the invalid ones."""
  corners = [record.values(f"image/object/bbox/{name}", "float_list") for name in _CORNERS]
  labels = record.values(_LABELS, "int64_list")
  counts = [*map(len, corners), len(labels)]
  if len(set(counts)) > 1:
    problem = f"{', '.join(map(str, counts[:4]))} corners and {counts[4]} labels"
    return max(counts), [problem] * max(counts)
  boxes = list(zip(*corners, strict=True))
  return len(boxes), [
    f"({', '.join(f'{value:g}' for value in box)})" for box in boxes if not _is_valid(*box)
  ]


def _is_valid(xmin: float, ymin: float, xmax: float, ymax: float) -> bool:
  box = (xmin, ymin, xmax, ymax)
  if not all(math.isfinite(value) and _LOWEST <= value <= _HIGHEST for value in box):
    return False
  return xmin < xmax and ymin < ymax
