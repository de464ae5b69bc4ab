"""The switches of the paper's Tables 3 to 6 in combination: exact parameters, a forward pass."""

import itertools

import numpy as np
import pytest

from tests.layers.bindings import FACES

BLOCKS, WIDTHS, HEADS = (1, 2, 4, 1), (4, 8, 16, 32), 2
SUBSETS = [groups for size in range(1, 5) for groups in itertools.combinations((1, 2, 3, 4), size)]
KERNELS = (3, 5, 7, 9, 11)
POSITIONS = (("relative", True), ("relative", False), ("absolute", True), ("none", True))

# Each kernel size with each kind of positions, over all combinations of groups, both stems and both
# faces. The maps are 4, 2, 1 and 1 pixels wide, or 4 times that: smaller than most kernels.
COMBINATIONS = [
  pytest.param(
    {
      "attention_groups": SUBSETS[index % len(SUBSETS)],
      "kernel_size": kernel_size,
      "positions": positions,
      "content": content,
      "stem": ("conv", "conv_small")[index // 2 % 2],
      "border": ("zero", "mask")[index // 4 % 2],
    },
    ("keras", "tf_keras")[index % 2],
    id="-".join(map(str, (*SUBSETS[index % len(SUBSETS)], kernel_size, positions, content))),
  )
  for index, (kernel_size, (positions, content)) in enumerate(itertools.product(KERNELS, POSITIONS))
]


def parameters(attention_groups, kernel_size, positions, content, stem, **_):
  """Counted by hand, from the paper's description of the network."""
  total = (49 if stem == "conv" else 9) * 3 * WIDTHS[0] + 2 * WIDTHS[0]
  channels = WIDTHS[0]
  for group, (blocks, width) in enumerate(zip(BLOCKS, WIDTHS, strict=True), start=1):
    spatial = 9 * width**2
    if group in attention_groups:
      spatial = (3 if content else 2) * width**2
      spatial += 2 * kernel_size * (width // HEADS // 2) if positions == "relative" else 0
    for block in range(blocks):
      norms = 2 * (width + width + 4 * width)
      total += channels * width + spatial + 4 * width**2 + norms
      total += channels * 4 * width + 2 * 4 * width if block == 0 else 0
      channels = 4 * width
  return total


@pytest.mark.parametrize(("switches", "flavour"), COMBINATIONS)
def test_any_combination_has_its_parameters_and_runs(switches, flavour):
  _, face = FACES[flavour]
  model = face.SASAResNet(
    26, width_multiplier=0.0625, num_heads=HEADS, input_shape=(16, 16, 3), **switches
  )
  found = sum(int(np.prod(w.shape)) for w in model.trainable_weights)
  assert found == parameters(**switches)
  image = np.random.default_rng(0).normal(size=(1, 16, 16, 3)).astype("float32")
  outputs = model(image)
  assert [x.shape[-1] for x in outputs.values()] == [4 * width for width in WIDTHS]
  assert all(np.isfinite(x).all() and np.ptp(x) > 0 for x in outputs.values())


def test_width_multiplier_scales_both_bodies():
  """Paper Fig. 5; the counts fall with the square of the width, but for norms and embeddings."""
  _, face = FACES["keras"]
  for groups, full in (((), 13_696_552), ((1, 2, 3, 4), 10_331_264)):
    model = face.SASAResNet(26, attention_groups=groups, width_multiplier=0.25, num_heads=2)
    found = sum(int(np.prod(w.shape)) for w in model.trainable_weights)
    assert 1.0 < found / ((full - 2_049_000) * 0.25**2) < 1.35
