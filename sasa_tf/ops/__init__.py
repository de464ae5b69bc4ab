"""Local attention as pure functions of tensors; nothing but TensorFlow."""

from sasa_tf.ops.geometry import WindowGeometry, window_geometry
from sasa_tf.ops.implementations import available_implementations, use_implementation
from sasa_tf.ops.local_attention import local_attention_2d, local_attention_weights
from sasa_tf.ops.positions import sinusoidal_positions

__all__ = [
  "WindowGeometry",
  "available_implementations",
  "local_attention_2d",
  "local_attention_weights",
  "sinusoidal_positions",
  "use_implementation",
  "window_geometry",
]
