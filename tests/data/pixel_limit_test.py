"""Decompression bombs are recognized by their headers."""

import numpy as np
import pytest
import tensorflow as tf

from sasa_tf.data.images.options import MAX_PIXELS
from sasa_tf.data.images.pixel_limit import bomb_problem
from tests.data import image_bombs

SIDE = 23_000


@pytest.mark.parametrize("make", [image_bombs.png, image_bombs.jpeg, image_bombs.gif])
def test_bombs_are_described(make):
  content = make(SIDE, SIDE - 1)
  problem = bomb_problem(content)
  assert problem.startswith(f"a decompression bomb: {len(content):,} bytes for 22,999 x 23,000")
  assert "which decode to 1.5 GiB" in problem


def test_images_of_the_usual_size_in_bytes_are_none():
  bomb = image_bombs.jpeg(SIDE, SIDE)
  assert not bomb_problem(bomb + bytes(SIDE * SIDE * 3 // 200))
  side = int(MAX_PIXELS**0.5)
  assert not bomb_problem(image_bombs.jpeg(side, side))
  image = np.zeros([8, 9, 3], np.uint8)
  for encode in (tf.io.encode_png, tf.io.encode_jpeg):
    assert not bomb_problem(encode(image).numpy())
  for content in (b"", b"\xff\xd8\xff", b"GIF8", b"\x89PNG\r\n\x1a\n", b"text"):
    assert not bomb_problem(content)
