"""Attention as pure functions of tensors; nothing but TensorFlow."""

from sasa_tf.ops.dispatch import available_implementations, check_implementation, use_implementation
from sasa_tf.ops.global_attention import global_attention_2d
from sasa_tf.ops.local_attention import (
  local_attention_2d,
  local_attention_2d_projected,
  local_attention_weights,
)
from sasa_tf.ops.positions import sinusoidal_positions
from sasa_tf.ops.qkv_packing import parts_of_projection
from sasa_tf.ops.stem.absorbed_attention import prefers_pixels, within_block_attention_of_pixels
from sasa_tf.ops.stem.block_attention import (
  within_block_attention_2d,
  within_block_attention_weights,
)
from sasa_tf.ops.stem.value_mixture import (
  spatial_mixture_weights,
  spatial_value_kernels,
  spatial_value_mixture,
)
from sasa_tf.ops.target_device import DEVICES, target_device, use_target_device
from sasa_tf.ops.window import WindowGeometry, window_geometry
from sasa_tf.ops.xla_barriers import computed_after

__all__ = [
  "DEVICES",
  "WindowGeometry",
  "available_implementations",
  "check_implementation",
  "computed_after",
  "global_attention_2d",
  "local_attention_2d",
  "local_attention_2d_projected",
  "local_attention_weights",
  "parts_of_projection",
  "prefers_pixels",
  "sinusoidal_positions",
  "spatial_mixture_weights",
  "spatial_value_kernels",
  "spatial_value_mixture",
  "target_device",
  "use_implementation",
  "use_target_device",
  "window_geometry",
  "within_block_attention_2d",
  "within_block_attention_of_pixels",
  "within_block_attention_weights",
]
