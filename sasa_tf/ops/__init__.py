"""Attention as pure functions of tensors, with no dependency but TensorFlow."""

from sasa_tf.ops.dispatch import available_implementations, use_implementation
from sasa_tf.ops.export_context import tracing_for_export
from sasa_tf.ops.global_attention import global_attention_2d
from sasa_tf.ops.kernel_status import KernelStatus, kernel_status
from sasa_tf.ops.local_attention import local_attention_2d, local_attention_weights
from sasa_tf.ops.local_self_attention import (
  local_attention_2d_qkv_packed,
  local_self_attention_2d,
)
from sasa_tf.ops.positions import sinusoidal_positions
from sasa_tf.ops.stem.block_attention import block_attention_2d, block_attention_weights
from sasa_tf.ops.stem.value_mixture import spatial_mixture_weights, spatial_value_mixture
from sasa_tf.ops.xla_barriers import use_target_device

__all__ = [
  "KernelStatus",
  "available_implementations",
  "block_attention_2d",
  "block_attention_weights",
  "global_attention_2d",
  "kernel_status",
  "local_attention_2d",
  "local_attention_2d_qkv_packed",
  "local_attention_weights",
  "local_self_attention_2d",
  "sinusoidal_positions",
  "spatial_mixture_weights",
  "spatial_value_mixture",
  "tracing_for_export",
  "use_implementation",
  "use_target_device",
]
