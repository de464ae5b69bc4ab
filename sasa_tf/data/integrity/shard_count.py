"""Compares the shards of a data set with dataset.json, which `make_tfrecords` wrote beside them."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator

from sasa_tf.data.errors import DatasetError
from sasa_tf.data.tfrecord.output_directory import RECORD_FILE, OutputDirectory


def find_problems(directory: str, files: Collection[str]) -> Iterator[str]:
  """Yields what is wrong with the splits of the files in a local directory.

  Args:
    directory: the directory; without dataset.json, there are no problems.
    files: the TFRecord files that are read from it.
  """
  path = os.path.join(directory, RECORD_FILE)
  if not os.path.lexists(path):
    return
  output = OutputDirectory(directory or ".")
  try:
    records = output.records()
  except (DatasetError, OSError):
    yield (
      f"{path} is not what make_tfrecords wrote, so that missing shards would not be noticed. "
      "Restore it, or remove it if the records are of another program."
    )
    return
  names = {os.path.basename(file) for file in files}
  for split, record in records.items():
    expected, found = record.get("shards"), {shard.name for shard in output.shards(split)}
    if isinstance(expected, int) and len(found) != expected and names & found:
      yield (
        f"{directory or '.'} has {len(found)} shards of split {split}; {RECORD_FILE} lists "
        f"{expected}. Copy the missing ones, or write the split again with --overwrite."
      )
