"""Block sizes of the `blocked` implementation."""

import pytest

from sasa_tf import ops
from sasa_tf.ops.blocked.block_sizes import block_size
from sasa_tf.ops.checks import window_geometry

SEVEN = window_geometry(7)


@pytest.mark.parametrize(
  "image, block",
  [
    ((56, 56), (4, 8)),
    ((28, 28), (4, 8)),
    ((14, 14), (14, 14)),
    ((7, 7), (7, 7)),
    ((1, 1), (1, 1)),
    ((160, 100), (4, 8)),
    ((17, 17), (4, 6)),
    ((14, 40), (14, 8)),
    ((None, None), (4, 8)),
    ((None, 7), (4, 7)),
  ],
)
def test_block_sizes_of_7x7_window(image, block):
  assert block_size(image, SEVEN) == block


def test_small_images_are_one_block():
  assert block_size((12, 12), window_geometry(3)) == (4, 7)
  assert block_size((12, 12), window_geometry(7)) == (12, 12)


def test_dilated_images_are_measured_in_phases():
  assert block_size((28, 27), window_geometry(7, 2)) == (14, 14)


@pytest.mark.parametrize("length", range(15, 200))
def test_padding_to_full_blocks_is_small(length):
  for block in block_size((length, length), SEVEN):
    assert -(-length // block) * block <= 1.25 * length


@pytest.mark.parametrize(
  ("image", "expected"),
  [
    ((56, 56), (4, 4)),
    ((28, 28), (4, 4)),
    ((14, 14), (2, 14)),
    ((7, 7), (7, 7)),
    ((5, 56), (5, 4)),
    ((None, None), (4, 4)),
  ],
)
def test_gpu_blocks_are_smaller(image, expected):
  with ops.use_target_device("GPU"):
    assert block_size(image, SEVEN) == expected
