"""Fonts and spelling of drawn labels, so that names of any script are legible."""

from __future__ import annotations

import functools
import pathlib
import re
import unicodedata

import matplotlib
from matplotlib.ft2font import FT2Font
from PIL import ImageFont

# What a label shows besides the name.
_SCORE = "0123456789% …"
# Their glyphs are boxes that only name the script.
_PLACEHOLDER_FONT = re.compile(r"\.?last ?resort", re.IGNORECASE)
# Unicode's names of syllables and letters contain the transliteration.
_TRANSLITERATION = re.compile(r" (?:LETTER|SYLLABLE|VOWEL SIGN)(?: SMALL)? (\w+)$")


def legible_label(name: str, size: int) -> tuple[str, ImageFont.FreeTypeFont]:
  r"""Returns a name as it can be drawn, and the font to draw it with.

  The font is matplotlib's bundled one, which covers most alphabets, or a font of the system that
  has all characters. If there is none, the missing characters are transliterated (Hangul, kana,
  alphabets) or written as Python escapes, such as \u72d7.

  Args:
    name: the name.
    size: size of the font in pixels.
  """
  name = unicodedata.normalize("NFC", name)
  path = _font_path("".join(sorted({*name})))
  font = _font(path or _bundled_font(), size)
  if path is None:
    name = "".join(map(_spelled, name))
  return "".join(filter(_characters(font.path).__contains__, name)), font


def _bundled_font() -> str:
  return str(pathlib.Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf"))


@functools.cache
def _font(path: str, size: int) -> ImageFont.FreeTypeFont:
  return ImageFont.truetype(path, size)


@functools.cache
def _font_path(text: str) -> str | None:
  """Returns the first font with glyphs for all characters of a text and of the scores, or None."""
  if _can_draw(_bundled_font(), text):
    return _bundled_font()
  return next((path for path in _system_fonts() if _can_draw(path, text + _SCORE)), None)


@functools.cache
def _system_fonts() -> tuple[str, ...]:
  """Returns the font files of the system, regular ones first."""
  from matplotlib import font_manager  # lists the fonts when it is imported the first time

  entries = sorted(
    font_manager.fontManager.ttflist,
    key=lambda entry: (
      entry.style != "normal",
      str(entry.weight) not in ("400", "normal"),
      entry.name,
    ),
  )
  paths = (entry.fname for entry in entries if not _PLACEHOLDER_FONT.match(entry.name))
  return tuple(dict.fromkeys(paths))


@functools.cache
def _characters(path: str) -> frozenset[str]:
  """Returns the characters of a scalable font; none if the file cannot be used."""
  try:
    font = FT2Font(path)
  except (OSError, RuntimeError):
    return frozenset()
  return frozenset(map(chr, font.get_charmap())) if font.scalable else frozenset()


def _can_draw(path: str, text: str) -> bool:
  """Returns whether a font has a visible glyph for each visible character."""
  visible = [character for character in text if not _is_invisible(character)]
  if not _characters(path).issuperset(visible):
    return False
  font = _font(path, 20)
  return all(font.getmask(character).getbbox() for character in visible if not character.isspace())


def _is_invisible(character: str) -> bool:
  """Returns whether a character only controls the layout, such as joiners and variants."""
  return unicodedata.category(character) == "Cf" or "VARIATION SELECTOR" in unicodedata.name(
    character, ""
  )


def _spelled(character: str) -> str:
  """Returns a character in letters that the bundled font has."""
  for spelling in (character, unicodedata.normalize("NFKD", character)):
    if _can_draw(_bundled_font(), spelling):
      return spelling
  if match := _TRANSLITERATION.search(unicodedata.name(character, "")):
    return match[1].lower()
  code = ord(character)
  return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
