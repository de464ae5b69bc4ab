"""Data sets with corrupt records: which ones they are, and how to do without."""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import tensorflow as tf
from tqdm import tqdm

from sasa_tf.data.integrity import record_validation, tfrecord_repair
from sasa_tf.data.integrity.record_validation import Expected
from sasa_tf.data.integrity.tfrecord_repair import Damage
from sasa_tf.errors import UserError


def inspect(
  file: str, compression: str, expected: Expected, *, thorough: bool = False
) -> list[Damage]:
  """Returns what of a TFRecord file cannot be used, in the order of the records.

  Args:
    file: path.
    compression: "" or "GZIP".
    expected: what the records should hold.
    thorough: see `record_validation.unusable`.
  """
  segments, damages = tfrecord_repair.segments(file, compression)
  if len(segments) == 1 and not damages:
    contents = tfrecord_repair.read(file, compression)
    damages = [
      Damage(file, number, problem)
      for number, problem in record_validation.unusable(contents, expected, thorough=thorough)
    ]
  else:
    for segment in segments:
      for offset, record in enumerate(tfrecord_repair.records_of(file, segment, compression)):
        problem = record_validation.problem_of(record, expected)
        if problem:
          damages.append(Damage(file, segment.first_record + offset, problem))
  return sorted(damages, key=lambda damage: damage.record)


def first_damage(files: Sequence[str], compression: str, expected: Expected) -> Damage | None:
  """Returns the first thing that is wrong with a data set, None where nothing is."""
  # Most are seen at a glance; to decode all images of a large data set takes hours.
  for thorough in (False, True):
    for _, damages in _inspect_all(files, compression, expected, thorough=thorough):
      if damages:
        return damages[0]
  return None


def leave_out(
  files: Sequence[str], compression: str, expected: Expected, *, limit: int, scratch: str
) -> list[str]:
  """Returns the files to read in the place of these: copies where there is something to leave out.

  Every file is read once; to train on what is healthy then costs nothing. What is left out is told
  on standard error.

  Args:
    files: paths of TFRecord files.
    compression: "" or "GZIP".
    expected: what the records should hold.
    limit: how many records may be left out.
    scratch: directory for the copies.

  Raises:
    UserError: more would have to be left out.
  """
  usable, damages = [], []
  for file, found in _inspect_all(files, compression, expected):
    damages += found
    for damage in found:
      print(f"warning: left out: {damage}", file=sys.stderr, flush=True)
    if len(damages) > limit:
      raise UserError(
        f"more than --max_corrupt_records={limit} corrupt records; the last one is {damages[-1]}. "
        "Raise the limit, or write the TFRecords again."
      )
    if not found:
      usable.append(file)
      continue
    copy = os.path.join(scratch, f"{len(usable):05d}", os.path.basename(file))
    os.makedirs(os.path.dirname(copy))
    _copy_without(file, copy, compression, {damage.record for damage in found})
    usable.append(copy)
  return usable


def _inspect_all(
  files: Sequence[str], compression: str, expected: Expected, *, thorough: bool = False
) -> Iterator[tuple[str, list[Damage]]]:
  """Yields each file and its damages, in order."""
  with ThreadPoolExecutor() as pool:
    found = pool.map(lambda file: inspect(file, compression, expected, thorough=thorough), files)
    bar = tqdm(found, total=len(files), desc="looking for corrupt records", unit="file")
    try:
      yield from zip(files, bar, strict=True)
    finally:
      bar.close()
      pool.shutdown(cancel_futures=True)


def _copy_without(file: str, copy: str, compression: str, left_out: set[int]) -> None:
  segments, _ = tfrecord_repair.segments(file, compression)
  with tf.io.TFRecordWriter(copy, compression) as writer:
    for segment in segments:
      records = tfrecord_repair.records_of(file, segment, compression)
      for number, record in zip(itertools.count(segment.first_record), records):
        if number not in left_out:
          writer.write(record)
