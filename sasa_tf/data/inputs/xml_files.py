"""Reads XML files in any encoding that Python knows, without document type declarations."""

import codecs
import os
import re
from xml.etree import ElementTree

from sasa_tf.data.inputs.regular_files import read_bytes
from sasa_tf.data.inputs.text_files import TextError, decode

# A declaration that matches is ASCII, so the file is not UTF-16 or UTF-32, whatever it declares.
_DECLARATION = re.compile(
  rb"""\s*<\?xml[^>]{0,99}?\sencoding\s*=\s*["']([A-Za-z][\w.\-]{0,40})["']"""
)
# Python's codecs that are no encodings of XML.
_UNSUPPORTED = ("idna", "punycode", "raw-unicode-escape", "undefined", "unicode-escape", "utf-7")
# Windows writes the characters of the second encoding and declares the first.
_EXTENSIONS = {
  "gb2312": "gb18030",
  "gbk": "gb18030",
  "big5": "big5hkscs",
  "shift_jis": "cp932",
  "euc_kr": "cp949",
}


def read_xml(path: str | os.PathLike) -> ElementTree.Element:
  """Reads an XML file.

  Document type declarations raise an error: they can define entities that expand to gigabytes or
  name other files, and annotations need none.

  Args:
    path: the file.

  Returns:
    The root element.

  Raises:
    TextError: if it is not XML, has a document type declaration, or cannot be decoded.
    OSError: if it cannot be read.
  """
  text = _decode(read_bytes(path))
  parser = ElementTree.XMLParser(target=_TreeBuilder())
  try:
    parser.feed(text.lstrip())
    return parser.close()
  except ElementTree.ParseError as error:
    raise TextError(f"invalid XML ({error})") from error


def _decode(content: bytes) -> str:
  """Decodes by the declaration, because Expat knows no multi-byte encodings but UTF-8 and 16."""
  declaration = _DECLARATION.match(content.removeprefix(codecs.BOM_UTF8))
  declared = declaration[1].decode("ascii") if declaration else ""
  try:
    codec = codecs.lookup(declared).name if declared else ""
  except LookupError:
    codec = declared  # `decode` reports it
  if codec in _UNSUPPORTED:
    raise TextError(f"unsupported encoding {declared}; save the file as UTF-8")
  if codec.startswith(("utf-16", "utf-32")):
    codec = ""
  try:
    return decode(content, codec)
  except TextError:
    if codec not in _EXTENSIONS:
      raise
  return decode(content, _EXTENSIONS[codec])


class _TreeBuilder(ElementTree.TreeBuilder):
  def doctype(self, name: str, pubid: str | None, system: str | None) -> None:
    """Called at a document type declaration, before its entities are read."""
    raise TextError(f"contains <!DOCTYPE {name}>, which is not supported. Remove the declaration")
