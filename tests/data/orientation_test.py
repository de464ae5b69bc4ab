"""The orientation is read from any bytes, eagerly, in a graph and from a SavedModel."""

import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from sasa_tf.data.images.orientation import decode_upright, exif_orientation

from . import exif_images, image_files

ORIENTATIONS = range(1, 9)
FORMATS = ("JPEG", "PNG", "WEBP")
PLAIN = image_files.jpeg()
read = tf.function(exif_orientation, input_signature=[tf.TensorSpec([], tf.string)])
decode = tf.function(decode_upright, input_signature=[tf.TensorSpec([], tf.string)])


@pytest.mark.parametrize("image_format", FORMATS)
@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_images_are_decoded_as_they_are_displayed(image_format, orientation):
  encoded = exif_images.encode(exif_images.quarters(), orientation, image_format)
  assert int(read(encoded)) == orientation
  pixels = decode(encoded).numpy()
  assert pixels.shape == ((48, 32, 3) if orientation >= 5 else (32, 48, 3))
  assert exif_images.quarters_of(pixels) == exif_images.CORNERS[orientation]


def test_eager_and_graph_agree():
  encoded = tf.constant(exif_images.encode(exif_images.quarters(), 6))
  np.testing.assert_array_equal(decode_upright(encoded), decode(encoded))


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("value_type", [3, 4])
def test_both_byte_orders_and_integer_types(order, value_type):
  block = exif_images.tiff_block(8, order, value_type)
  assert int(read(exif_images.with_segments(PLAIN, b"Exif\0\0" + block))) == 8


def test_the_block_is_found_behind_other_segments():
  block = b"Exif\0\0" + exif_images.tiff_block(3, ">")
  others = [b"http://ns.adobe.com/xap/1.0/\0<x/>", b"\xff\xe1" * 20000, b""]
  assert int(read(exif_images.with_segments(PLAIN, *others, block))) == 3
  png = exif_images.encode(exif_images.quarters(), 7, "PNG")
  start = png.index(b"eXIf") - 4
  chunk = png[start : start + 12 + int.from_bytes(png[start : start + 4], "big")]
  assert int(read(png[:start] + png[start + len(chunk) : -12] + chunk + png[-12:])) == 7


@pytest.mark.parametrize(
  "block",
  [
    exif_images.tiff_block(0),
    exif_images.tiff_block(9),
    exif_images.tiff_block(6, value_type=2),
    exif_images.tiff_block(6, tag=0x0113),
    exif_images.tiff_block(6, entries=0),
    exif_images.tiff_block(6).replace(b"II", b"IM"),
    exif_images.tiff_block(6).replace(b"\x2a", b"\x2b"),
    exif_images.tiff_block(6)[:4] + b"\xff\xff\xff\xff" + exif_images.tiff_block(6)[8:],
    b"",
    b"II*\0",
  ],
)
def test_invalid_blocks_mean_as_stored(block):
  assert int(read(exif_images.with_segments(PLAIN, b"Exif\0\0" + block))) == 1


def test_any_bytes_have_an_orientation():
  random = np.random.default_rng(0)
  for image_format in FORMATS:
    encoded = exif_images.encode(exif_images.quarters(), 6, image_format)
    for length in [*range(60), len(encoded) - 1]:
      assert int(read(encoded[:length])) in (1, 6)
    for _ in range(100):
      corrupt = bytearray(encoded)
      for position in random.integers(0, min(200, len(corrupt)), 4):
        corrupt[position] = random.integers(256)
      assert 1 <= int(read(bytes(corrupt))) <= 8


def test_many_chunks_do_not_take_long():
  chunks = (bytes(4) + b"aaaa" + bytes(4)) * 20_000
  assert int(read(b"\x89PNG\r\n\x1a\n" + chunks)) == 1


def _animation(mode, image_format):
  # Opaque or half transparent: colors of invisible pixels are not stored.
  pixels = [image_files.pixels(20, 30, 4, seed) | [0, 0, 0, 128] for seed in range(3)]
  frames = [Image.fromarray(each.astype(np.uint8)).convert(mode) for each in pixels]
  content = io.BytesIO()
  options = {"save_all": True, "append_images": frames[1:], "lossless": True}
  frames[0].save(content, image_format, **options)
  return content.getvalue(), np.asarray(frames[0].convert("RGB"))


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_the_first_frame_of_a_webp_animation(mode):
  encoded, expected = _animation(mode, "WEBP")
  assert b"ANMF" in encoded
  np.testing.assert_array_equal(decode(encoded), expected)


@pytest.mark.parametrize("lossless", [True, False])
def test_transparent_webp_images(lossless):
  pixels = np.dstack([exif_images.quarters(), image_files.pixels(32, 48, 1)])
  content = io.BytesIO()
  Image.fromarray(pixels).save(content, "WEBP", lossless=lossless, quality=90, exact=True)
  assert exif_images.quarters_of(decode(content.getvalue()).numpy()) == (0, 1, 2, 3)


def test_the_first_frame_of_a_lossy_webp_animation():
  frames = [Image.fromarray(exif_images.quarters()), Image.fromarray(exif_images.quarters()[::-1])]
  content = io.BytesIO()
  frames[0].save(content, "WEBP", save_all=True, append_images=frames[1:], quality=90)
  assert b"VP8 " in content.getvalue()
  assert exif_images.quarters_of(decode(content.getvalue()).numpy()) == (0, 1, 2, 3)


def test_the_first_frame_of_a_gif():
  assert decode(image_files.ANIMATED_GIF).shape == (1, 1, 3)


def test_webp_animation_without_frames_raises():
  encoded, _ = _animation("RGB", "WEBP")
  with pytest.raises(tf.errors.InvalidArgumentError):
    decode(encoded.replace(b"ANMF", b"NONE"))
  for length in range(12, 200):
    with pytest.raises(tf.errors.InvalidArgumentError):
      decode(encoded[:length])


def test_a_saved_model_turns_a_batch(tmp_path):
  module = tf.Module()
  module.decode = tf.function(
    lambda encoded: tf.map_fn(
      lambda each: tf.cast(tf.image.resize(decode_upright(each), [2, 2], "nearest"), tf.int32),
      encoded,
      fn_output_signature=tf.int32,
    ),
    input_signature=[tf.TensorSpec([None], tf.string)],
  )
  tf.saved_model.save(module, str(tmp_path / "model"))
  encoded = [exif_images.encode(exif_images.quarters(), orientation) for orientation in (1, 6)]
  # The loaded functions consist of the saved graph, without the Python code.
  upright, turned = tf.saved_model.load(str(tmp_path / "model")).decode(encoded).numpy()
  assert exif_images.quarters_of(upright) == exif_images.CORNERS[1]
  assert exif_images.quarters_of(turned) == exif_images.CORNERS[6]
