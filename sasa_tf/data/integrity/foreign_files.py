"""Recognizes files that are no TFRecord files: text, images, archives and other formats."""

from __future__ import annotations

from sasa_tf.data.integrity import raw_records
from sasa_tf.data.integrity.record_headers import is_endless, is_header

_SAMPLE_BYTES = 512
_GZIP = b"\x1f\x8b"
_KINDS = {
  b"version https://git-lfs": "a pointer of Git LFS (run `git lfs pull` to get the file)",
  b"\xff\xd8\xff": "a JPEG image",
  b"\x89PNG\r\n": "a PNG image",
  b"GIF8": "a GIF image",
  b"PK\x03\x04": "a ZIP archive",
  b"PAR1": "a Parquet file",
  b"\x89HDF\r\n": "an HDF5 file",
  b"\x93NUMPY": "a NumPy file",
  b"%PDF": "a PDF file",
  b"BZh": "a bzip2 archive",
  b"\xfd7zXZ": "an xz archive",
  b"\x28\xb5\x2f\xfd": "a Zstandard archive",
  b"SQLite format 3": "an SQLite database",
}
_TAR_OFFSET, _TAR = 257, b"ustar"


def foreign_kind(file: str, compression: str = "") -> str:
  """Returns what a file is instead of a TFRecord file, such as "a text file".

  Args:
    file: path of the file.
    compression: "" or "GZIP".

  Returns:
    The kind, with the cure if there is one in the configuration. "" for TFRecord files, empty ones
    and those of unknown content, which may be corrupt TFRecords.
  """
  start = raw_records.read_start(file, _SAMPLE_BYTES)
  if not start:
    return ""
  is_gzip = start.startswith(_GZIP)
  if compression and is_gzip:
    start = raw_records.read_start(file, _SAMPLE_BYTES, compression)
    kind = _endless(start) if is_header(start) else _kind(start)
    return f"{kind} in gzip" if kind else ""
  if is_header(start):
    if compression:
      return "a TFRecord file without compression (file_type is tfrecord)"
    return _endless(start)
  if is_gzip:
    return "compressed with gzip (file_type is tfrecord_compressed if it has TFRecords)"
  kind = _kind(start)
  if compression and not kind:
    return "not compressed with gzip"
  return kind


def _endless(header: bytes) -> str:
  """Returns the problem of a record that TensorFlow would crash on when it allocates its bytes."""
  if not is_endless(header):
    return ""
  length = int.from_bytes(header[:8], "little")
  return f"a corrupt TFRecord file, whose first record has a length of {length:,} bytes"


def _kind(start: bytes) -> str:
  for magic, kind in _KINDS.items():
    if start.startswith(magic):
      return kind
  if start[_TAR_OFFSET:].startswith(_TAR):
    return "a tar archive"
  # The last character may be cut.
  text = start.decode("utf-8", "replace").removesuffix("\ufffd")
  is_text = bool(text) and all(c.isprintable() or c in "\t\n\r\f\ufeff" for c in text)
  return "a text file" if is_text and "\ufffd" not in text else ""
