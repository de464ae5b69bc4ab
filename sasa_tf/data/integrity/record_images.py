"""Recognizes decompression bombs among the images of records before a run."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from sasa_tf.data.errors import DatasetError
from sasa_tf.data.images.pixel_limit import bomb_problem
from sasa_tf.data.integrity import raw_records

# A sample, because the check runs before every training.
_MAX_FILES, _MAX_RECORDS = 8, 1024


def check_images(files: Sequence[str], compression: str, image_key: str) -> None:
  """Raises `DatasetError` if an image would decode to gigabytes.

  Args:
    files: paths of TFRecord files; the first records of some of them are read.
    compression: "" or "GZIP".
    image_key: feature of the encoded image.
  """
  for file in files[:: -(-len(files) // _MAX_FILES) or 1]:
    records = raw_records.read(file, compression)
    for index, record in enumerate(itertools.islice(records, _MAX_RECORDS // _MAX_FILES)):
      example = raw_records.parse(record)
      features = example.features.feature if example else {}
      images = features[image_key].bytes_list.value if image_key in features else ()
      if problem := bomb_problem(images[0]) if images else "":
        raise DatasetError(
          f"{file}, record {index} (from 0): {image_key} is {problem}. Write the TFRecords again "
          "without this image; `python -m sasa_tf.bin.make_tfrecords` skips it."
        )
