"""Combinations of the options of Tables 3 to 6: exact parameters and a forward pass."""

import itertools

import numpy as np
import pytest

from tests.layers.bindings import BINDINGS

pytestmark = pytest.mark.thorough

BLOCKS, WIDTHS, HEADS = (1, 2, 4, 1), (4, 8, 16, 32), 2
SUBSETS = [stages for size in range(1, 5) for stages in itertools.combinations((1, 2, 3, 4), size)]
KERNELS = (3, 5, 7, 9, 11)
POSITIONS = (("relative", True), ("relative", False), ("absolute", True), ("none", True))

# Each kernel size with each kind of positions, cycling through the subsets of stages, the stems and
# the bindings. The feature maps have 4, 2, 1 and 1 pixels per side, or 4 times as many, which is
# smaller than most kernels.
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
    tuple(BINDINGS)[index % len(BINDINGS)],
    id="-".join(map(str, (*SUBSETS[index % len(SUBSETS)], kernel_size, positions, content))),
  )
  for index, (kernel_size, (positions, content)) in enumerate(itertools.product(KERNELS, POSITIONS))
]


def parameters(attention_groups, kernel_size, positions, content, stem, **_):
  """Returns the number of parameters, counted from the paper's description of the network."""
  total = (49 if stem == "conv" else 9) * 3 * WIDTHS[0] + 2 * WIDTHS[0]
  channels = WIDTHS[0]
  for stage, (blocks, width) in enumerate(zip(BLOCKS, WIDTHS, strict=True), start=1):
    spatial = 9 * width**2
    if stage in attention_groups:
      spatial = (3 if content else 2) * width**2
      spatial += 2 * kernel_size * (width // HEADS // 2) if positions == "relative" else 0
    for block in range(blocks):
      norms = 2 * (width + width + 4 * width)
      total += channels * width + spatial + 4 * width**2 + norms
      total += channels * 4 * width + 2 * 4 * width if block == 0 else 0
      channels = 4 * width
  return total


@pytest.mark.parametrize(("switches", "keras_api"), COMBINATIONS)
def test_parameters_and_forward_pass(switches, keras_api):
  _, binding = BINDINGS[keras_api]
  model = binding.SASAResNet(
    26, width_multiplier=0.0625, num_heads=HEADS, input_shape=(16, 16, 3), **switches
  )
  found = sum(int(np.prod(w.shape)) for w in model.trainable_weights)
  assert found == parameters(**switches)
  image = np.random.default_rng(0).normal(size=(1, 16, 16, 3)).astype("float32")
  outputs = model(image)
  assert [x.shape[-1] for x in outputs.values()] == [4 * width for width in WIDTHS]
  assert all(np.isfinite(x).all() and np.ptp(x) > 0 for x in outputs.values())


def test_width_multiplier_scales_both_backbones():
  """Paper Fig. 5: except norms and embeddings, the counts grow with the square of the width."""
  _, binding = BINDINGS["keras"]
  for stages, full in (((), 13_696_552), ((1, 2, 3, 4), 10_331_264)):
    model = binding.SASAResNet(26, attention_groups=stages, width_multiplier=0.25, num_heads=2)
    found = sum(int(np.prod(w.shape)) for w in model.trainable_weights)
    assert 1.0 < found / ((full - 2_049_000) * 0.25**2) < 1.35
