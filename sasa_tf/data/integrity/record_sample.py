"""The records that the checks before a training read: the first ones of some files."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from sasa_tf.data.integrity import raw_records

# A sample, because the checks run before every training. Records are shuffled when they are
# written, so the sample holds most classes.
_MAX_FILES, _MAX_RECORDS = 8, 1024


class SampledRecord(NamedTuple):
  """A record.

  Attributes:
    file: path of its file.
    index: its number in the file, from 0.
    features: its features by name; none if it is corrupt.
  """

  file: str
  index: int
  features: Any

  def __str__(self) -> str:
    """Names the record in messages."""
    return f"{self.file}, record {self.index} (from 0)"

  def values(self, key: str, kind: str) -> Sequence[Any]:
    """Returns the values of a feature, empty without it.

    Args:
      key: name of the feature.
      kind: "bytes_list", "float_list" or "int64_list".
    """
    return getattr(self.features[key], kind).value if key in self.features else ()


def sample_records(files: Sequence[str], compression: str = "") -> Iterator[SampledRecord]:
  """Yields the first records of some TFRecord files.

  Args:
    files: paths of the files.
    compression: "" or "GZIP".
  """
  for file in files[:: -(-len(files) // _MAX_FILES) or 1]:
    records = raw_records.read(file, compression)
    for index, record in enumerate(itertools.islice(records, _MAX_RECORDS // _MAX_FILES)):
      example = raw_records.parse(record)
      yield SampledRecord(file, index, example.features.feature if example else {})
