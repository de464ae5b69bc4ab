"""Reads text files of any system: byte order marks, line endings and encodings."""

import codecs
import os

from sasa_tf.data.errors import DatasetError
from sasa_tf.data.inputs.regular_files import read_bytes

# UTF-32 first, because its mark begins with that of UTF-16.
_BYTE_ORDER_MARKS = {
  codecs.BOM_UTF8: "utf-8",
  codecs.BOM_UTF32_LE: "utf-32-le",
  codecs.BOM_UTF32_BE: "utf-32-be",
  codecs.BOM_UTF16_LE: "utf-16-le",
  codecs.BOM_UTF16_BE: "utf-16-be",
}
# Which of the first four bytes are zero, if the first two characters are ASCII.
_ZERO_BYTES = {
  (False, True, True, True): "utf-32-le",
  (True, True, True, False): "utf-32-be",
  (False, True, False, True): "utf-16-le",
  (True, False, True, False): "utf-16-be",
}
# First bytes of compressed files -> the program that decompresses them.
_ARCHIVES = {b"\x1f\x8b": "gunzip", b"PK\x03\x04": "unzip", b"BZh": "bunzip2", b"\xfd7zXZ": "unxz"}
# Encodings that an error suggests, if the file can be decoded with them.
_SUGGESTED = ("gb18030", "big5", "cp932", "euc_kr", "cp1252")


class TextError(ValueError):
  """A file is not the text that was expected; the message is a reason without the file's name."""


def read_text(path: str | os.PathLike) -> str:
  r"""Reads UTF-8, UTF-16 or UTF-32, with or without a byte order mark; line endings become \n.

  Raises:
    TextError: if it has another encoding; names the offset of the first invalid byte and the cure.
    OSError: if it cannot be read.
  """
  return decode(read_bytes(path)).replace("\r\n", "\n").replace("\r", "\n")


def read_lines(path: str | os.PathLike, content: str) -> list[str]:
  """Reads the lines of a text file without surrounding white space and without blank last lines.

  Args:
    path: the file.
    content: what a line holds, such as "class name", for the message.

  Raises:
    DatasetError: if it cannot be read or is not text.
  """
  expected = f"Expected a text file with one {content} per line"
  try:
    text = read_text(path)
  except OSError as error:
    raise DatasetError(f"cannot read {os.fspath(path)}: {error.strerror}. {expected}.") from error
  except TextError as error:
    raise DatasetError(f"{os.fspath(path)}: {error}. {expected}.") from error
  # A mark inside of the text is left over from files that were concatenated.
  lines = [line.strip().strip("\ufeff").strip() for line in text.split("\n")]
  while lines and not lines[-1]:
    lines.pop()
  return lines


def decode(content: bytes, declared: str = "") -> str:
  """Decodes text that begins with an ASCII character or a byte order mark.

  Args:
    content: the bytes of a file.
    declared: encoding that the file itself declares; a byte order mark overrides it. UTF-8 by
      default.

  Returns:
    The text without the byte order mark.

  Raises:
    TextError: if it cannot be decoded, is compressed, or contains NUL characters.
  """
  for start, program in _ARCHIVES.items():
    if content.startswith(start):
      raise TextError(f"a compressed file, not text. Decompress it first, with {program}")
  mark, encoding = b"", _ZERO_BYTES.get(tuple(not byte for byte in content[:4])) or declared
  for candidate, its_encoding in _BYTE_ORDER_MARKS.items():
    if content.startswith(candidate):
      mark, encoding = candidate, its_encoding
      break
  encoding = encoding or "utf-8"
  try:
    text = content[len(mark) :].decode(encoding)
  except UnicodeDecodeError as error:
    offset = len(mark) + error.start
    raise TextError(
      f"not {encoding.upper()} text: byte 0x{content[offset]:02x} at offset {offset} is invalid. "
      f"{_cure(content)}"
    ) from error
  except (LookupError, UnicodeError) as error:
    raise TextError(
      f"the encoding {encoding} is unknown or does not fit. {_cure(content)}"
    ) from error
  if (position := text.find("\0")) >= 0:
    offset = len(mark) + len(text[:position].encode(encoding, "replace"))
    raise TextError(f"binary data, not text: a NUL character at offset {offset}")
  return text


def _cure(content: bytes) -> str:
  """Returns how to convert the file to UTF-8."""
  candidates = []
  for encoding in _SUGGESTED:
    try:
      content.decode(encoding)
      candidates.append(codecs.lookup(encoding).name.upper().replace("_", "-"))
    except UnicodeDecodeError:
      pass
  fitting = f" where ENCODING may be {', '.join(candidates)}" if candidates else ""
  return f"Convert the file: iconv -f ENCODING -t UTF-8 FILE > NEW_FILE{fitting}"
