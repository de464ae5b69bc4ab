"""Model Garden's blocks have the layers that are read by private names."""

import pytest
import tf_keras
from official.vision.modeling.layers import nn_blocks

from sasa_tf.compat.bottleneck_blocks import bottleneck_layers, is_residual_block


@pytest.mark.parametrize("use_projection", [False, True])
def test_layers_of_a_bottleneck_block(use_projection):
  block = nn_blocks.BottleneckBlock(2, 1, use_projection=use_projection)
  block(tf_keras.Input([4, 4, 8]))
  layers = bottleneck_layers(block)
  assert list(layers) == ["reduce", "spatial", "expand"] + ["shortcut"] * use_projection
  sizes = {part: tuple(convolution.kernel.shape) for part, (convolution, _) in layers.items()}
  assert sizes["spatial"] == (3, 3, 2, 2) and sizes["expand"] == (1, 1, 2, 8)
  assert all(norm.gamma.shape[0] == sizes[part][-1] for part, (_, norm) in layers.items())


def test_other_layers():
  block = nn_blocks.ResidualBlock(2, 1)
  block(tf_keras.Input([4, 4, 2]))
  assert is_residual_block(block) and bottleneck_layers(block) is None
  assert not is_residual_block(tf_keras.layers.Conv2D(2, 1))
