import codecs

import pytest

from sasa_tf.data.inputs.text_files import TextError
from sasa_tf.data.inputs.xml_files import read_xml


def _read(tmp_path, content):
  (tmp_path / "a.xml").write_bytes(content)
  return read_xml(tmp_path / "a.xml")


@pytest.mark.parametrize(
  ("declared", "written", "text"),
  [
    ("UTF-8", "utf-8", "猫"),
    ("utf-8", "utf-8-sig", "猫"),
    ("GBK", "gbk", "猫"),
    ("gb2312", "gb2312", "犬"),
    ("gb2312", "gbk", "貓"),  # Windows declares gb2312 and writes GBK.
    ("GB18030", "gb18030", "猫"),
    ("Big5", "big5", "貓"),
    ("Shift_JIS", "shift_jis", "猫"),
    ("Shift_JIS", "cp932", "①"),
    ("sjis", "shift_jis", "ネコ"),
    ("EUC-KR", "euc_kr", "고양이"),
    ("ks_c_5601-1987", "cp949", "똠"),
    ("euc-jp", "euc_jp", "猫"),
    ("iso-8859-1", "latin-1", "é"),
    ("windows-1251", "cp1251", "кот"),
    ("utf-16", "utf-16", "猫"),
    ("utf-16", "utf-16-le", "猫"),
    ("utf-16", "utf-8", "猫"),  # .NET declares the encoding of its strings.
  ],
)
def test_reads_the_declared_encoding(tmp_path, declared, written, text):
  xml = f'<?xml version="1.0" encoding="{declared}"?>\r\n<a><b>{text}</b></a>'
  assert _read(tmp_path, xml.encode(written)).findtext("b") == text


def test_reads_utf_8_without_a_declaration_and_leading_lines(tmp_path):
  assert _read(tmp_path, "<a>猫</a>".encode()).text == "猫"
  assert _read(tmp_path, codecs.BOM_UTF8 + b"\r\n <?xml version='1.0'?><a>b</a>").text == "b"


ENTITIES = "".join(f'<!ENTITY e{i + 1} "{f"&e{i};" * 10}">' for i in range(30))
BOMB = f'<?xml version="1.0"?><!DOCTYPE a [<!ENTITY e0 "ha">{ENTITIES}]><a>&e30;</a>'


@pytest.mark.parametrize(
  ("content", "message"),
  [
    (b"", "invalid XML"),
    (b"<a>", "invalid XML"),
    (b"<a>&#0;</a>", "invalid XML"),
    (b"<a>\x01</a>", "invalid XML"),
    (b"<a>&nbsp;</a>", "invalid XML"),
    (BOMB.encode(), "<!DOCTYPE a>, which is not supported"),
    (b'<!DOCTYPE a [<!ENTITY b SYSTEM "/etc/passwd">]><a>&b;</a>', "Remove the declaration"),
    ("<a>中文</a>".encode("gbk"), "not UTF-8 text: byte .* at offset 3.*iconv"),
    (b'<?xml version="1.0" encoding="klingon"?><a>\xff</a>', "encoding klingon is unknown"),
    (b'<?xml version="1.0" encoding="unicode_escape"?><a/>', "unsupported encoding"),
    (b'<?xml version="1.0" encoding="gb2312"?><a>\xff</a>', "not GB18030 text"),
    (b"\x89PNG\r\n\x1a\n\0\0", "not UTF-8 text"),
  ],
)
def test_other_content_raises(tmp_path, content, message):
  with pytest.raises(TextError, match=message):
    _read(tmp_path, content)


def test_reads_deeply_nested_elements(tmp_path):
  root = _read(tmp_path, b"<a>" * 100_000 + b"</a>" * 100_000)
  assert root.find("b") is None
