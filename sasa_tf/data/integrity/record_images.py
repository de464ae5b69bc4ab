"""Recognizes decompression bombs among the images of records before a run."""

from __future__ import annotations

from sasa_tf.data.errors import DatasetError
from sasa_tf.data.images.pixel_limit import bomb_problem
from sasa_tf.data.integrity.record_sample import SampledRecord


def check_image(record: SampledRecord, image_key: str) -> None:
  """Raises `DatasetError` if the image of a record would decode to gigabytes.

  Args:
    record: to check.
    image_key: feature of the encoded image.
  """
  images = record.values(image_key, "bytes_list")
  if problem := bomb_problem(images[0]) if images else "":
    raise DatasetError(
      f"{record}: {image_key} is {problem}. Write the TFRecords again without this image; `python "
      "-m sasa_tf.bin.make_tfrecords` skips it."
    )
