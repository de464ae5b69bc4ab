"""Geometry of the attention window."""

import pytest

from sasa_tf.ops.checks import window_geometry


def test_offsets_are_centered_and_dilated():
  geometry = window_geometry((3, 5), (2, 1), "mask")
  assert geometry.offsets == ((-2, 0, 2), (-2, -1, 0, 1, 2))
  assert geometry.reach == (2, 2)
  assert geometry.size == 15


def test_equal_arguments_return_the_same_geometry():
  assert window_geometry(7) is window_geometry([7, 7], (1, 1), "zero")
  assert len({window_geometry(7), window_geometry(5), window_geometry((7, 7))}) == 2


@pytest.mark.parametrize("kernel_size", [2, (3, 4), 0, -1, (3,), 3.0, True, "3"])
def test_invalid_kernel_sizes(kernel_size):
  with pytest.raises(ValueError, match="kernel_size must be"):
    window_geometry(kernel_size)
