"""The layers before a ResNet's first group."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sasa_tf.modeling.blocks import Parts

STEMS = ("conv", "conv_small", "attention")


def build_stem(
  images: Any, parts: Parts, stem: str, filters: int, attention: Callable[..., Any]
) -> Any:
  """Applies a stem.

  Args:
    images: symbolic [B, H, W, C].
    parts: of the network.
    stem: "conv" is ResNet's: a 7x7 convolution of stride 2 and a 3x3 max pool of stride 2.
      "conv_small" is a 3x3 convolution of stride 1. "attention" is the paper's (Sec. 3.2):
      attention inside of blocks, batch norm, and a max pool over each block, without a
      non-linearity, as the paper names none.
    filters: width of the stem.
    attention: (filters, name=...) -> the layer of an attention stem.

  Returns:
    Symbolic [B, ceil(H / 4), ceil(W / 4), filters]; [B, H, W, filters] for "conv_small".
  """
  layers = parts.keras.layers
  if stem == "attention":
    attend = attention(filters, name="stem")
    x = parts.normalize(attend(images), name="stem", activate=False)
    return layers.MaxPooling2D(attend.block_size, padding="same", name="stem_pool")(x)
  kernel_size, strides = (7, 2) if stem == "conv" else (3, 1)
  x = parts.convolution(filters, kernel_size, strides=strides, name="stem")(images)
  x = parts.normalize(x, name="stem")
  if stem == "conv":
    x = layers.MaxPooling2D(3, strides=2, padding="same", name="stem_pool")(x)
  return x
