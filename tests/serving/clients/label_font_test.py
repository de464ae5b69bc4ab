"""Names of any script are drawn legibly; no label shows the box of a missing glyph."""

import sys
import unicodedata

import numpy as np
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from PIL import Image, ImageDraw

from sasa_tf.serving.clients import drawing, label_font

from .labeled_boxes import LabeledBox, gray

DOG = "\u72d7"  # in Chinese


@pytest.fixture(autouse=True)
def no_cached_choices():
  label_font._font_path.cache_clear()
  yield
  label_font._font_path.cache_clear()


@pytest.fixture
def no_system_fonts(monkeypatch):
  monkeypatch.setattr(label_font, "_system_fonts", lambda: ())


def drawn(name):
  """Returns the pixels of an image with one label."""
  detection = LabeledBox(1, name, 0.5, (100, 300, 500, 600))
  return np.asarray(drawing.draw_detections(gray(700, 700), [detection]))


def text_pixels(text, font):
  image = Image.new("L", [400, 100])
  ImageDraw.Draw(image).text((10, 10), text, 255, font)
  return np.asarray(image)


@pytest.mark.parametrize(
  ("name", "spelled"),
  [
    (DOG, r"\u72d7"),
    ("\uac15\uc544\uc9c0", "gangaji"),  # Hangul
    ("\u304b\u308f\u3044\u3044", "kawaii"),  # kana
    ("\u0915\u093e", "kaaa"),  # Devanagari: a letter and a vowel sign
    ("\uff21\uff22 1", "AB 1"),  # full-width letters
    ("\U0001f9ac", r"\U0001f9ac"),  # a symbol
    ("e\u0301t\u00e9", "\u00e9t\u00e9"),  # a decomposed letter
    ("\u043a\u043e\u0442", "\u043a\u043e\u0442"),  # Cyrillic, which the bundled font has
    ("a\x01", r"a\u0001"),
  ],
)
def test_missing_characters_are_spelled(no_system_fonts, name, spelled):
  np.testing.assert_array_equal(drawn(name), drawn(spelled))
  assert label_font.legible_label(name, 20)[0] == spelled


def test_different_names_differ_in_pixels(no_system_fonts):
  images = [drawn(name) for name in (DOG, "\u732b", "\uac15", "\u304b", "")]
  for index, image in enumerate(images):
    assert all((image != other).any() for other in images[:index])


def _font_file(path, characters):
  """Writes a font whose glyphs are triangles, and a box for missing characters."""
  pen = TTGlyphPen(None)
  for points in ([(100, 0), (900, 0), (500, 800)],):
    pen.moveTo(points[0])
    pen.lineTo(points[1])
    pen.lineTo(points[2])
    pen.closePath()
  triangle = pen.glyph()
  pen = TTGlyphPen(None)
  pen.moveTo((100, 0))
  for point in ((100, 800), (900, 800), (900, 0)):
    pen.lineTo(point)
  pen.closePath()
  names = [".notdef", *(f"glyph{ord(character)}" for character in characters)]
  builder = FontBuilder(1000, isTTF=True)
  builder.setupGlyphOrder(names)
  builder.setupCharacterMap(dict(zip(map(ord, characters), names[1:], strict=True)))
  builder.setupGlyf({name: pen.glyph() if name == ".notdef" else triangle for name in names})
  builder.setupHorizontalMetrics(dict.fromkeys(names, (1000, 100)))
  builder.setupHorizontalHeader(ascent=800, descent=-200)
  builder.setupNameTable({"familyName": "Triangles", "styleName": "Regular"})
  builder.setupOS2()
  builder.setupPost()
  builder.save(path)
  return str(path)


def test_a_font_of_the_system_that_has_the_characters_is_used(tmp_path, monkeypatch):
  letters = "0123456789% \u2026"
  lacking = _font_file(tmp_path / "lacking.ttf", letters)
  having = _font_file(tmp_path / "having.ttf", letters + DOG)
  fonts = (str(tmp_path / "missing.ttf"), lacking, having)
  monkeypatch.setattr(label_font, "_system_fonts", lambda: fonts)
  text, font = label_font.legible_label(DOG, 30)
  assert (text, font.path) == (DOG, having)
  triangle = text_pixels(text, font)
  assert 0.3 < (triangle > 128).sum() / 24**2 < 0.7  # half of the box of a missing glyph
  assert (triangle != text_pixels("\u732b", font)).any()
  escaped = drawn(r"\u72d7")
  assert (drawn(DOG) != escaped).any()
  assert label_font.legible_label("dog", 30)[1].path == label_font._bundled_font()
  monkeypatch.setattr(label_font, "_system_fonts", lambda: fonts[:2])
  label_font._font_path.cache_clear()
  np.testing.assert_array_equal(drawn(DOG), escaped)


def test_fonts_of_the_system_are_found_except_placeholders():
  fonts = label_font._system_fonts()
  assert fonts and not any("LastResort" in path for path in fonts)
  text, font = label_font.legible_label(DOG, 20)
  assert label_font._can_draw(font.path, text)


def test_no_character_is_drawn_as_a_missing_glyph(no_system_fonts):
  random = np.random.default_rng(0)
  codes = [*range(0, 0x3000, 5), *random.integers(0x3000, sys.maxunicode, 500)]
  for character in map(chr, codes):
    if unicodedata.category(character) == "Cs":
      continue  # surrogates are no characters
    text, font = label_font.legible_label(character, 20)
    assert label_font._can_draw(font.path, text), hex(ord(character))
