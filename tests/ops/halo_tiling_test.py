"""Blocks and tiles contain the right pixels, and folding is the transpose of splitting."""

import numpy as np
import pytest
import tensorflow as tf

from sasa_tf.ops.blocked.halo_tiling import HaloTiling
from sasa_tf.ops.checks import window_geometry
from sasa_tf.ops.types import DEVICES
from sasa_tf.ops.xla_barriers import use_target_device

TILINGS = {
  "padded": HaloTiling(window_geometry((3, 5)), (5, 9), (2, 4), (False, False)),
  "single_block": HaloTiling(window_geometry((3, 5)), (5, 9), (5, 9), (True, True)),
  "single_row_block": HaloTiling(window_geometry((3, 5)), (5, 9), (5, 2), (True, False)),
  "halo_beyond_image": HaloTiling(window_geometry((11, 9)), (3, 2), (1, 2), (False, False)),
  "dilated": HaloTiling(window_geometry(3, (2, 3)), (7, 8), (2, 2), (False, False)),
}


@pytest.mark.parametrize("name", TILINGS)
def test_blocks_and_tiles_contain_their_pixels(name):
  tiling = TILINGS[name]
  (height, width), (rows, columns) = tiling.image, tiling.block
  numbers = np.arange(1.0, height * width + 1).reshape([height, width])
  images = tf.constant(np.stack([numbers, -numbers], axis=-1)[None, :, :, :, None])
  blocks, tiles = tiling.split_queries(images).numpy(), tiling.split_keys(images).numpy()

  def pixel(sign, y, x):
    return sign * numbers[y, x] if 0 <= y < height and 0 <= x < width else 0.0

  starts = [h if not single else 0 for h, single in zip(tiling.halo, tiling.single, strict=True)]
  index = 0
  for sign in (1.0, -1.0):
    for phase in np.ndindex(*tiling.rates):
      for block in np.ndindex(*tiling.counts):
        y, x = (
          lambda row, p=phase[0], b=block[0]: (b * rows + row) * tiling.rates[0] + p,
          lambda column, p=phase[1], b=block[1]: (b * columns + column) * tiling.rates[1] + p,
        )
        expected = [pixel(sign, y(r), x(c)) for r, c in np.ndindex(rows, columns)]
        np.testing.assert_array_equal(blocks[index, :, 0], expected)
        expected = [
          pixel(sign, y(r - starts[0]), x(c - starts[1])) for r, c in np.ndindex(*tiling.tile)
        ]
        np.testing.assert_array_equal(tiles[index, :, 0], expected)
        index += 1
  assert index == len(blocks) == len(tiles)
  with use_target_device("TPU"):
    np.testing.assert_array_equal(tiling.split_keys(images), tiles)


@pytest.mark.parametrize("name", TILINGS)
def test_join_inverts_split(name):
  tiling = TILINGS[name]
  images = tf.random.stateless_normal([2, *tiling.image, 3, 2], [0, 1])
  np.testing.assert_array_equal(tiling.join_queries(tiling.split_queries(images), 3), images)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", TILINGS)
def test_fold_is_the_transpose_of_split(name, device):
  tiling = TILINGS[name]
  images = tf.random.stateless_normal([2, *tiling.image, 3, 2], [0, 1], dtype=tf.float64)
  with use_target_device(device):
    with tf.GradientTape() as tape:
      tape.watch(images)
      tiles = tiling.split_keys(images)
    upstream = tf.random.stateless_normal(tiles.shape, [2, 3], dtype=tf.float64)
    expected = tape.gradient(tiles, images, upstream)
    np.testing.assert_allclose(tiling.fold_keys(upstream, 3), expected, rtol=1e-12)
