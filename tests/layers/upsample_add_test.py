"""UpsampleAdd2D: values and errors."""

import numpy as np
import pytest

from tests.layers.bindings import BINDINGS, both_bindings


@both_bindings
@pytest.mark.parametrize(("height", "width"), [(4, 6), (3, 5), (1, 1), (2, 7)])
def test_matches_nearest_neighbor_upsampling(keras_api, height, width):
  _, binding = BINDINGS[keras_api]
  rng = np.random.default_rng(0)
  coarse = rng.normal(size=(2, -(-height // 2), -(-width // 2), 3)).astype("float32")
  fine = rng.normal(size=(2, height, width, 3)).astype("float32")
  expected = fine.copy()
  for row in range(height):
    for column in range(width):
      expected[:, row, column] += coarse[:, row // 2, column // 2]
  np.testing.assert_allclose(binding.UpsampleAdd2D()([coarse, fine]), expected, atol=1e-6)


@both_bindings
def test_incompatible_sizes_raise(keras_api):
  _, binding = BINDINGS[keras_api]
  with pytest.raises(Exception, match=r"(?i)shape"):
    binding.UpsampleAdd2D()([np.zeros((1, 2, 2, 3), "float32"), np.zeros((1, 6, 6, 3), "float32")])
