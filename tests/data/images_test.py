import os

import pytest

from sasa_tf.data.errors import BrokenImageError
from sasa_tf.data.images import ImageFacts, inspect_image

from . import image_files


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
def test_tells_format_and_size(encoded, image_format):
  assert inspect_image(encoded) == ImageFacts(image_format, 13, 7)


@pytest.mark.parametrize("name", image_files.broken_files())
def test_refuses_broken_files(name):
  encoded, complaint = image_files.broken_files()[name]
  with pytest.raises(BrokenImageError, match=complaint) as raised:
    inspect_image(encoded)
  assert "\n" not in str(raised.value)
  assert "{{" not in str(raised.value)


@pytest.mark.parametrize(
  "encoded", [image_files.png(), image_files.jpeg(), image_files.jpeg(progressive=True)]
)
def test_catches_a_truncation_anywhere(encoded):
  # The last byte alone, half of JPEG's end marker, costs no pixel.
  for length in range(len(encoded) - 1):
    with pytest.raises(BrokenImageError):
      inspect_image(encoded[:length])


def test_the_decoders_stay_silent_and_stderr_comes_back(capfd):
  with pytest.raises(BrokenImageError):
    inspect_image(image_files.jpeg()[:-40])
  assert capfd.readouterr().err == ""
  os.write(2, b"audible")
  assert capfd.readouterr().err == "audible"
