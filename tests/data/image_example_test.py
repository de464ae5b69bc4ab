import io
import os
import struct
import zlib

import numpy as np
import pytest
import tensorflow as tf
from PIL import ExifTags, Image
from sklearn import datasets

from sasa_tf.data.errors import BrokenImageError, DatasetError
from sasa_tf.data.images import notes
from sasa_tf.data.images.options import ImageOptions
from sasa_tf.data.tfrecord.image_example import LoadedImage, load_image, serialize

from . import exif_images, image_files


@pytest.mark.parametrize(
  ("encoded", "image_format"),
  [
    (image_files.jpeg(13, 7), "jpeg"),
    (image_files.jpeg(13, 7, progressive=True), "jpeg"),
    (image_files.jpeg(13, 7, channels=1), "jpeg"),
    (image_files.png(13, 7), "png"),
    (image_files.png(13, 7, channels=1), "png"),
    (image_files.png(13, 7, channels=4), "png"),
  ],
)
def test_returns_format_and_size(encoded, image_format):
  assert load_image(encoded) == LoadedImage(encoded, image_format, 13, 7, 1, [])


@pytest.mark.parametrize("name", image_files.broken_files())
def test_broken_files_raise(name):
  encoded, message = image_files.broken_files()[name]
  with pytest.raises(BrokenImageError, match=message) as raised:
    load_image(encoded)
  assert "\n" not in str(raised.value)
  assert "{{" not in str(raised.value)


@pytest.mark.parametrize(
  "encoded", [image_files.png(), image_files.jpeg(), image_files.jpeg(progressive=True)]
)
def test_truncated_files_raise(encoded):
  # Without the last byte, half of JPEG's end marker, no pixel is missing.
  for length in range(len(encoded) - 1):
    with pytest.raises(BrokenImageError):
      load_image(encoded[:length])


def test_decoders_print_nothing_and_stderr_is_restored(capfd):
  with pytest.raises(BrokenImageError):
    load_image(image_files.jpeg()[:-40])
  assert capfd.readouterr().err == ""
  os.write(2, b"audible")
  assert capfd.readouterr().err == "audible"


@pytest.mark.parametrize("image_format", ["JPEG", "PNG"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_are_stored_upright_without_the_tag(image_format, orientation):
  encoded = exif_images.encode(exif_images.quarters(), orientation, image_format)
  loaded = load_image(encoded)
  pixels = tf.io.decode_image(loaded.encoded).numpy()
  assert exif_images.quarters_of(pixels) == exif_images.CORNERS[orientation]
  assert pixels.shape[:2] == (loaded.height, loaded.width)
  assert (loaded.format, loaded.orientation) == (image_format.lower(), orientation)
  if orientation == 1:
    assert loaded.encoded == encoded and loaded.notes == []
  else:
    assert loaded.notes == [notes.TURNED]
    assert b"Exif" not in loaded.encoded and b"eXIf" not in loaded.encoded


def test_turned_png_images_keep_their_pixels():
  pixels = image_files.pixels(9, 14)
  loaded = load_image(exif_images.encode(pixels, 6, "PNG"))
  np.testing.assert_array_equal(tf.io.decode_png(loaded.encoded), np.rot90(pixels, -1))


@pytest.mark.parametrize("options", [{"quality": 60}, {"quality": 95, "subsampling": 0}])
def test_turned_jpeg_images_keep_quality_and_size(options):
  photo = datasets.load_sample_image("china.jpg")[:400, :600]
  encoded = exif_images.encode(photo, 6, **options)
  loaded = load_image(encoded)
  assert abs(len(loaded.encoded) / len(encoded) - 1) < 0.1
  stored, turned = (tf.io.decode_jpeg(e).numpy().astype(float) for e in (encoded, loaded.encoded))
  error = np.mean((np.rot90(stored, -1) - turned) ** 2)
  assert 10 * np.log10(255**2 / error) > 41


@pytest.mark.parametrize("mode", ["L", "CMYK", "MPO"])
def test_other_kinds_of_jpeg_are_turned(mode):
  image = Image.fromarray(exif_images.quarters(64, 32))
  exif = Image.Exif()
  exif[ExifTags.Base.Orientation] = 8
  content = io.BytesIO()
  if mode == "MPO":  # several images, as phones write
    image.save(content, "MPO", exif=exif, save_all=True, append_images=[image])
  else:
    image.convert(mode).save(content, "JPEG", exif=exif)
  loaded = load_image(content.getvalue())
  assert (loaded.format, loaded.height, loaded.width) == ("jpeg", 32, 64)
  assert tf.io.decode_jpeg(loaded.encoded, channels=3).shape == (32, 64, 3)


def _png_header(height, width):
  chunk = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
  checksum = struct.pack(">I", zlib.crc32(chunk))
  return image_files.png()[:8] + struct.pack(">I", 13) + chunk + checksum + image_files.png()[33:]


def _jpeg_header(height, width):
  encoded = bytearray(image_files.jpeg())
  position = encoded.index(b"\xff\xc0") + 5
  encoded[position : position + 4] = struct.pack(">HH", height, width)
  return bytes(encoded)


@pytest.mark.parametrize("bomb", [_png_header(23_000, 23_000), _jpeg_header(65_500, 65_500)])
def test_images_with_too_many_pixels_are_not_decoded(bomb, monkeypatch):
  monkeypatch.setattr(tf.io, "decode_image", None)
  with pytest.raises(BrokenImageError, match=r"pixels are more than --max_pixels=100000000\. "):
    load_image(bomb)


def test_the_pixel_limit_is_an_option():
  encoded = image_files.jpeg(30, 40)
  assert load_image(encoded, ImageOptions(max_pixels=1200)).width == 40
  with pytest.raises(BrokenImageError, match="40 x 30 pixels are more than --max_pixels=1199"):
    load_image(encoded, ImageOptions(max_pixels=1199))


@pytest.mark.parametrize(
  ("options", "message"),
  [
    (ImageOptions(max_pixels=0), "--max_pixels must be 1 or more, received 0"),
    (ImageOptions(verify="all"), "--verify must be decode or full, received 'all'"),
    (ImageOptions(exif_boxes="auto"), "--exif_boxes must be displayed or stored, received 'auto'"),
  ],
)
def test_invalid_options_raise(options, message):
  with pytest.raises(DatasetError, match=message):
    options.checked()


def test_serialization_does_not_depend_on_the_order():
  features = {f"key{i}": [i] for i in range(50)}
  assert serialize(features) == serialize(dict(reversed(features.items())))


def test_serialized_lists_of_each_type():
  example = tf.train.Example.FromString(
    serialize({"i": [1, -2], "f": [0.5], "b": [b"x", b""], "none": []})
  )
  feature = example.features.feature
  assert list(feature["i"].int64_list.value) == [1, -2]
  assert list(feature["f"].float_list.value) == [0.5]
  assert list(feature["b"].bytes_list.value) == [b"x", b""]
  assert "none" in feature


@pytest.mark.parametrize("values", [["text"], [1, 2.0], [True]])
def test_values_of_other_or_mixed_types_raise(values):
  with pytest.raises(TypeError, match="'key' must hold"):
    serialize({"key": values})
