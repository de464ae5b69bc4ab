"""Compares the class names of labels.txt with those in the records, and checks the labels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from sasa_tf.data.errors import DatasetError
from sasa_tf.data.inputs.values import shown
from sasa_tf.data.integrity.record_sample import SampledRecord, sample_records

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
  for record in sample_records(files, compression):
    for number, name in _named_classes(record):
      listed = class_names[number] if 0 <= number < len(class_names) else None
      if listed != name:
        has = f"names it {shown(listed)}" if listed is not None else "has no such line"
        raise DatasetError(
          f"{labels} does not belong to the records: {record.file} names the class of label "
          f"{number} {shown(name)}, and {labels} {has}. Restore the labels.txt that was written "
          "with the records, or write both again."
        )


def check_label_range(record: SampledRecord, label_key: str) -> None:
  """Raises `DatasetError` for labels that Model Garden, which casts them to int32, would change.

  Args:
    record: to check.
    label_key: feature of the labels.
  """
  for label in record.values(label_key, "int64_list"):
    if not _MIN_INT32 <= label <= _MAX_INT32:
      raise DatasetError(
        f"{record}: {label_key} is {label:,}, which is not a class of any model. Write the "
        "TFRecords again with labels from 0."
      )


def _named_classes(record: SampledRecord) -> Iterator[tuple[int, str]]:
  """Yields (label, class name) of a record."""
  for prefix in ("image/class", "image/object/class"):
    numbers = record.values(f"{prefix}/label", "int64_list")
    names = record.values(f"{prefix}/text", "bytes_list")
    if len(numbers) == len(names):
      for number, name in zip(numbers, names, strict=True):
        yield number, name.decode("utf-8", "backslashreplace")
