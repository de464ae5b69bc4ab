"""Compares the images of TFRecords with an annotation file before a run, not after the training."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Iterator, Sequence

import tensorflow as tf

from sasa_tf.data.errors import DatasetError
from sasa_tf.data.integrity import raw_records

# A sample: the evaluation compares all images.
_MAX_RECORDS = 64
_SOURCE_ID = "image/source_id"


def check_image_ids(annotation_file: str, files: Sequence[str], compression: str = "") -> None:
  """Raises `DatasetError` if the first images are not in the annotation file.

  The content of files on remote file systems, and other content, is read by the evaluation, which
  names them.

  Args:
    annotation_file: a COCO instances file.
    files: paths of TFRecord files; the first records are read.
    compression: "" or "GZIP".
  """
  if "://" in annotation_file:
    # Raises the error of a file system that cannot be reached.
    if not tf.io.gfile.exists(annotation_file):
      raise DatasetError(
        f"task.annotation_file={annotation_file} does not exist; expected a COCO instances file. "
        "Set its path, or omit task.annotation_file to use the boxes of the TFRecords."
      )
    return
  if not os.path.isfile(annotation_file):
    kind = "is no file" if os.path.exists(annotation_file) else "does not exist"
    raise DatasetError(
      f"task.annotation_file={annotation_file} {kind}; expected a COCO instances file. Set its "
      "path, or omit task.annotation_file to use the boxes of the TFRecords."
    )
  try:
    with open(annotation_file, encoding="utf-8") as file:
      # Other ids than integers are those of no record.
      annotated = {image["id"] for image in json.load(file).get("images", ())}
  except (OSError, ValueError, TypeError, LookupError, AttributeError, RecursionError):
    return
  ids = list(itertools.islice(_image_ids(files, compression), _MAX_RECORDS))
  missing = [image for image in ids if image not in annotated]
  if missing:
    raise DatasetError(
      f"task.annotation_file={annotation_file} has no images with the ids "
      f"{', '.join(map(str, missing[:5]))}{' ...' if len(missing) > 5 else ''}, which the records "
      f"of task.validation_data have ({len(missing)} of the first {len(ids)} images). Use the "
      "annotations that these TFRecords were created from, or omit task.annotation_file to use the "
      "boxes of the TFRecords."
    )


def _image_ids(files: Sequence[str], compression: str) -> Iterator[int]:
  """Yields the image ids of the records that have a valid one."""
  for file in files:
    for record in raw_records.read(file, compression):
      example = raw_records.parse(record)
      values = example.features.feature[_SOURCE_ID].bytes_list.value if example else ()
      if len(values) == 1 and values[0].isdigit():
        yield int(values[0])
