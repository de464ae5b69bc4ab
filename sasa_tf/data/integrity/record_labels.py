"""Compares the class names of labels.txt with those in the records, and checks the labels."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

from sasa_tf.data.errors import DatasetError
from sasa_tf.data.inputs.values import shown
from sasa_tf.data.integrity import raw_records

# A sample, because the check runs before every training. Records are shuffled when they are
# written, so the sample holds most classes.
_MAX_FILES, _MAX_RECORDS = 8, 1024
_MIN_INT32, _MAX_INT32 = -(1 << 31), (1 << 31) - 1


def check_labels(
  labels: str, class_names: Sequence[str], files: Sequence[str], compression: str = ""
) -> None:
  """Raises `DatasetError` if records name a class differently from labels.txt.

  Records without class names, and corrupt ones, are not compared.

  Args:
    labels: path of labels.txt, for the message.
    class_names: its class names, by label.
    files: paths of TFRecord files; the first records of some of them are read.
    compression: "" or "GZIP".
  """
  for file in files[:: -(-len(files) // _MAX_FILES) or 1]:
    for number, name in _named_classes(file, compression, _MAX_RECORDS // _MAX_FILES):
      listed = class_names[number] if 0 <= number < len(class_names) else None
      if listed != name:
        has = f"names it {shown(listed)}" if listed is not None else "has no such line"
        raise DatasetError(
          f"{labels} does not belong to the records: {file} names the class of label {number} "
          f"{shown(name)}, and {labels} {has}. Restore the labels.txt that was written with the "
          "records, or write both again."
        )


def check_label_range(files: Sequence[str], compression: str, label_key: str) -> None:
  """Raises `DatasetError` for labels that Model Garden, which casts them to int32, would change.

  Args:
    files: paths of TFRecord files; the first records of some of them are read.
    compression: "" or "GZIP".
    label_key: feature of the labels.
  """
  for file in files[:: -(-len(files) // _MAX_FILES) or 1]:
    records = raw_records.read(file, compression)
    for index, record in enumerate(itertools.islice(records, _MAX_RECORDS // _MAX_FILES)):
      example = raw_records.parse(record)
      features = example.features.feature if example else {}
      labels = features[label_key].int64_list.value if label_key in features else ()
      for label in labels:
        if not _MIN_INT32 <= label <= _MAX_INT32:
          raise DatasetError(
            f"{file}, record {index} (from 0): {label_key} is {label:,}, which is not a class of "
            "any model. Write the TFRecords again with labels from 0."
          )


def _named_classes(file: str, compression: str, limit: int) -> Iterator[tuple[int, str]]:
  """Yields (label, class name) of the first records of a file, each once."""
  pairs: dict[tuple[int, bytes], None] = {}
  for record in itertools.islice(raw_records.read(file, compression), limit):
    example = raw_records.parse(record)
    features = example.features.feature if example else {}
    for prefix in ("image/class", "image/object/class"):
      if f"{prefix}/label" in features and f"{prefix}/text" in features:
        numbers = features[f"{prefix}/label"].int64_list.value
        names = features[f"{prefix}/text"].bytes_list.value
        if len(numbers) == len(names):
          pairs.update(dict.fromkeys(zip(numbers, names, strict=True)))
  for number, name in pairs:
    yield number, name.decode("utf-8", "backslashreplace")
