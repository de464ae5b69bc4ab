"""Finds the corrupt records of a data set and copies files without them."""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import tensorflow as tf

from sasa_tf.data.integrity import record_validation, tfrecord_repair
from sasa_tf.data.integrity.record_validation import RecordSchema
from sasa_tf.data.integrity.tfrecord_repair import Corruption
from sasa_tf.errors import UserError
from sasa_tf.reporting import track


def find_corrupt_records(
  file: str, compression: str, schema: RecordSchema, *, decode_all: bool = False
) -> list[Corruption]:
  """Returns what cannot be used of a TFRecord file, in the order of the records.

  Args:
    file: path of the file.
    compression: "" or "GZIP".
    schema: the expected features.
    decode_all: see `record_validation.invalid_records`.
  """
  segments, corruptions = tfrecord_repair.scan(file, compression)
  if len(segments) == 1 and not corruptions:
    records = tfrecord_repair.read(file, compression)
    corruptions = [
      Corruption(file, index, problem)
      for index, problem in record_validation.invalid_records(
        records, schema, decode_all=decode_all
      )
    ]
  else:
    for segment in segments:
      records = tfrecord_repair.read_segment(file, segment, compression)
      for index, record in enumerate(records, start=segment.first_record):
        problem = record_validation.validate_record(record, schema)
        if problem:
          corruptions.append(Corruption(file, index, problem))
  return sorted(corruptions, key=lambda corruption: corruption.record)


def find_corruption(
  files: Sequence[str], compression: str, schema: RecordSchema
) -> tuple[Corruption, bool] | None:
  """Returns the first corruption of a data set and whether it can be skipped, or None.

  A corruption that is only found by decoding all images is not skipped by `skip_corrupt_records`.
  """
  # Decoding all images of a large data set takes hours; most corruptions are found without it.
  for decode_all in (False, True):
    for _, corruptions in _find_in_files(files, compression, schema, decode_all=decode_all):
      if corruptions:
        return corruptions[0], not decode_all
  return None


def skip_corrupt_records(
  files: Sequence[str], compression: str, schema: RecordSchema, *, limit: int, scratch: str
) -> list[str]:
  """Returns files without corrupt records: valid files, and copies of the others.

  Every file is read once, before training, so that skipping costs nothing during training. Skipped
  records are listed on standard error.

  Args:
    files: paths of TFRecord files.
    compression: "" or "GZIP".
    schema: the expected features.
    limit: maximum number of records to skip.
    scratch: directory for the copies.

  Raises:
    UserError: if more records are corrupt, or no valid record is left.
  """
  valid_files, skipped, has_record = [], [], False
  for file, corruptions in _find_in_files(files, compression, schema):
    skipped += corruptions
    for corruption in corruptions:
      print(f"warning: skipped {corruption}", file=sys.stderr, flush=True)
    if len(skipped) > limit:
      raise UserError(
        f"more than --max_corrupt_records={limit} corrupt records; the last one is {skipped[-1]}. "
        "Raise the limit, or write the TFRecords again."
      )
    if corruptions:
      copy = os.path.join(scratch, f"{len(valid_files):05d}", os.path.basename(file))
      os.makedirs(os.path.dirname(copy))
      _copy_without(file, copy, compression, {corruption.record for corruption in corruptions})
      file = copy
    valid_files.append(file)
    has_record = has_record or any(True for _ in tfrecord_repair.read(file, compression).take(1))
  if not has_record:  # training would wait for a record forever
    raise UserError(
      f"no valid record is left in {len(files)} files (the first is {files[0]}): {len(skipped)} "
      "are corrupt, and the rest is empty. Write the TFRecords again."
    )
  return valid_files


def _find_in_files(
  files: Sequence[str], compression: str, schema: RecordSchema, *, decode_all: bool = False
) -> Iterator[tuple[str, list[Corruption]]]:
  """Yields each file and its corruptions, in order."""
  with ThreadPoolExecutor() as pool:
    results = pool.map(
      lambda file: find_corrupt_records(file, compression, schema, decode_all=decode_all), files
    )
    progress = track(results, "Looking for corrupt records", total=len(files), unit="file")
    try:
      yield from zip(files, progress, strict=True)
    finally:
      progress.close()
      pool.shutdown(cancel_futures=True)


def _copy_without(file: str, copy: str, compression: str, skipped: set[int]) -> None:
  segments, _ = tfrecord_repair.scan(file, compression)
  with tf.io.TFRecordWriter(copy, compression) as writer:
    for segment in segments:
      records = tfrecord_repair.read_segment(file, segment, compression)
      for index, record in zip(itertools.count(segment.first_record), records):
        if index not in skipped:
          writer.write(record)
