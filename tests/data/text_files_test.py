import codecs
import gzip
import os

import pytest

from sasa_tf.data.errors import DatasetError
from sasa_tf.data.inputs.text_files import TextError, decode, read_lines, read_text

TEXT = "Katze\nGröße 猫\n"
ENCODED = {
  "utf-8": TEXT.encode(),
  "utf-8 with mark": codecs.BOM_UTF8 + TEXT.encode(),
  "utf-16-le": TEXT.encode("utf-16-le"),
  "utf-16-be": TEXT.encode("utf-16-be"),
  "utf-16-le with mark": codecs.BOM_UTF16_LE + TEXT.encode("utf-16-le"),
  "utf-16-be with mark": codecs.BOM_UTF16_BE + TEXT.encode("utf-16-be"),
  "utf-32-le": TEXT.encode("utf-32-le"),
  "utf-32-le with mark": codecs.BOM_UTF32_LE + TEXT.encode("utf-32-le"),
  "utf-32-be with mark": codecs.BOM_UTF32_BE + TEXT.encode("utf-32-be"),
}


@pytest.mark.parametrize("name", ENCODED)
def test_reads_every_unicode_encoding(name):
  assert decode(ENCODED[name]) == TEXT


def test_compressed_files_are_named(tmp_path):
  (tmp_path / "a.json.gz").write_bytes(gzip.compress(b"{}"))
  with pytest.raises(TextError, match=r"compressed file, not text. Decompress it .* gunzip"):
    read_text(tmp_path / "a.json.gz")


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_reads_the_line_endings_of_every_system(tmp_path, end):
  (tmp_path / "a.txt").write_bytes(f"a{end}b{end}".encode("utf-16"))
  assert read_text(tmp_path / "a.txt") == "a\nb\n"


def test_lines_have_no_surrounding_white_space_marks_or_blank_end(tmp_path):
  (tmp_path / "a.txt").write_bytes("\ufeff a \t\r\n\r\n\ufeffb\u2028c\xa0\r\n \r\n\r\n".encode())
  assert read_lines(tmp_path / "a.txt", "name") == ["a", "", "b\u2028c"]
  (tmp_path / "a.txt").write_bytes(b"\r\n")
  assert read_lines(tmp_path / "a.txt", "name") == []


@pytest.mark.parametrize(
  ("content", "message"),
  [
    (
      "ab\n中文".encode("gbk"),
      r"not UTF-8 text: byte 0xd6 at offset 3.*iconv -f ENCODING.*GB18030",
    ),
    (b"caf\xe9", r"byte 0xe9 at offset 3.*CP1252"),
    (codecs.BOM_UTF16_LE + b"a\0b", r"not UTF-16-LE text: byte 0x62 at offset 4"),
    (b"ab\0c", r"binary data, not text: a NUL character at offset 2"),
    (b"\0\0\0\0", r"binary data.*offset 0"),
    (b"\x89PNG\r\n\x1a\n", r"byte 0x89 at offset 0"),
  ],
)
def test_other_content_raises_with_offset_and_cure(tmp_path, content, message):
  with pytest.raises(TextError, match=message):
    decode(content)
  (tmp_path / "a.txt").write_bytes(content)
  with pytest.raises(DatasetError, match=rf"a\.txt: .*{message}.*one name per line"):
    read_lines(tmp_path / "a.txt", "name")


@pytest.mark.parametrize("declared", ["klingon", "base64", "gbk"])
def test_unfit_declared_encodings_raise(declared):
  with pytest.raises(TextError, match="iconv"):
    decode(b"a\xff", declared)


def test_pipes_devices_and_folders_raise(tmp_path):
  os.mkfifo(tmp_path / "pipe")
  with pytest.raises(DatasetError, match=r"cannot read .*pipe: not a regular file"):
    read_lines(tmp_path / "pipe", "name")
  with pytest.raises(DatasetError, match=r"/dev/zero: not a regular file"):
    read_lines("/dev/zero", "name")
  with pytest.raises(DatasetError, match=r"cannot read .*: Is a directory\. Expected a text file"):
    read_lines(tmp_path, "name")
  with pytest.raises(DatasetError, match=r"embedded null (byte|character)"):
    read_lines("a\0b", "name")
