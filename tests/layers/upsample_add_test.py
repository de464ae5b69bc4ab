"""The top-down step of a pyramid."""

import numpy as np
import pytest

from tests.layers.bindings import FACES, both


@both
@pytest.mark.parametrize(("height", "width"), [(4, 6), (3, 5), (1, 1), (2, 7)])
def test_each_pixel_meets_the_one_that_it_lies_in(flavour, height, width):
  _, face = FACES[flavour]
  rng = np.random.default_rng(0)
  coarse = rng.normal(size=(2, -(-height // 2), -(-width // 2), 3)).astype("float32")
  fine = rng.normal(size=(2, height, width, 3)).astype("float32")
  expected = fine.copy()
  for row in range(height):
    for column in range(width):
      expected[:, row, column] += coarse[:, row // 2, column // 2]
  np.testing.assert_allclose(face.UpsampleAdd2D()([coarse, fine]), expected, atol=1e-6)


@both
def test_maps_of_other_sizes_are_refused(flavour):
  _, face = FACES[flavour]
  with pytest.raises(Exception, match=r"(?i)shape"):
    face.UpsampleAdd2D()([np.zeros((1, 2, 2, 3), "float32"), np.zeros((1, 6, 6, 3), "float32")])
