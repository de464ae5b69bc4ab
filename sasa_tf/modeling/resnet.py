"""ResNet whose spatial convolutions are exchanged for local self-attention (paper Sec. 4.1)."""

from __future__ import annotations

import functools
import types
from collections.abc import Collection, Sequence
from typing import Any

from sasa_tf.layers import KerasBound
from sasa_tf.modeling.blocks import Parts, bottleneck_block

# Bottleneck blocks in each of the four groups (paper Sec. 4.1).
BLOCKS = {26: (1, 2, 4, 1), 38: (2, 3, 5, 2), 50: (3, 4, 6, 3)}
WIDTHS = (64, 128, 256, 512)
STEMS = ("conv", "conv_small")


def scaled_width(width: int, multiplier: float, unit: int) -> int:
  """Returns width * multiplier, rounded to the nearest positive multiple of `unit`."""
  return max(1, round(width * multiplier / unit)) * unit


def _stem(images: Any, parts: Parts, stem: str, filters: int) -> Any:
  """The layers before the first group, by their name in `STEMS`."""
  kernel_size, strides = (7, 2) if stem == "conv" else (3, 1)
  x = parts.convolution(filters, kernel_size, strides=strides, name="stem")(images)
  x = parts.normalize(x, name="stem")
  if stem == "conv":
    x = parts.keras.layers.MaxPooling2D(3, strides=2, padding="same", name="stem_pool")(x)
  return x


class SASAResNetBase(KerasBound):
  """ResNet v1.5 with attention in the place of the 3x3 convolutions of chosen groups.

  With `attention_groups=()` it is the convolutional baseline, with (1, 2, 3, 4) the paper's fully
  attentional body. A group's first block halves the resolution: a convolution by its stride,
  attention by average pooling after it (paper Sec. 3.1). No classifier: the outputs are the last
  feature maps of the groups.

  Input: images [B, H, W, C]; `input_shape` may leave H and W unknown.
  Output: {"2": ..., "3": ..., "4": ..., "5": ...}, [B, H/2^level, W/2^level, 4 * width] with the
  conv stem and the default strides; with "conv_small" the level "2" has the input's resolution.
  `output_specs` holds their shapes.

  Example:
    >>> backbone = SASAResNet(model_id=26, input_shape=(224, 224, 3))
    >>> features = backbone(images)["5"]  # [B, 7, 7, 2048]
  """

  def __init__(
    self,
    model_id: int = 50,
    stem: str = "conv",
    attention_groups: Collection[int] = (1, 2, 3, 4),
    width_multiplier: float = 1.0,
    kernel_size: int | tuple[int, int] = 7,
    num_heads: int = 8,
    positions: str = "relative",
    content: bool = True,
    border: str = "zero",
    implementation: str = "auto",
    *,
    group_strides: Sequence[int] = (1, 2, 2, 2),
    input_shape: tuple[int | None, int | None, int] = (None, None, 3),
    activation: str = "relu",
    use_sync_bn: bool = False,
    norm_momentum: float = 0.9,
    norm_epsilon: float = 1e-5,
    kernel_initializer: Any = "VarianceScaling",
    kernel_regularizer: Any = None,
    **kwargs: Any,
  ):
    """Builds the network.

    Args:
      model_id: 26, 38 or 50 layers, all of bottleneck blocks.
      stem: "conv" is a 7x7 convolution of stride 2 and a 3x3 max pool of stride 2; "conv_small", a
        3x3 convolution of stride 1, suits images of about 32 pixels or fewer.
      attention_groups: which of the groups 1 to 4 use attention; the others use 3x3 convolutions.
      width_multiplier: scales the channels of every layer (paper Fig. 5), rounded to the nearest
        multiple of 2 * num_heads, so that every head has an even width.
      kernel_size: window of the attention layers, odd int or (rows, columns).
      num_heads: heads of every attention layer.
      positions: "relative", "absolute" or "none".
      content: False for attention by relative position alone (paper Table 6).
      border: "zero" or "mask", what a neighbour outside of the image is.
      implementation: of the attention, "auto" or one of `sasa_tf.ops.available_implementations()`.
      group_strides: stride of the first block of each group. ImageNet's default halves the
        resolution three times; images of few pixels want less.
      input_shape: (H, W, C) of the images; H and W may be None.
      activation: name of the non-linearity.
      use_sync_bn: whether batch norm sees the batch of all replicas.
      norm_momentum: of batch norm's moving averages.
      norm_epsilon: of batch norm.
      kernel_initializer: of convolutions and projections.
      kernel_regularizer: of convolutions and projections.
      **kwargs: Keras's own (`name`, `trainable`).

    Raises:
      ValueError: an argument out of range; the message says which, and how to mend it.
    """
    if model_id not in BLOCKS:
      raise ValueError(f"model_id must be one of {tuple(BLOCKS)}; received {model_id!r}.")
    if stem not in STEMS:
      raise ValueError(f"stem must be one of {STEMS}; received {stem!r}.")
    attention_groups = tuple(sorted(set(attention_groups)))
    if not set(attention_groups) <= {1, 2, 3, 4}:
      raise ValueError(
        "attention_groups must name groups among 1, 2, 3 and 4 (1 has the highest resolution); "
        f"received {attention_groups}. Use () for the convolutional baseline."
      )
    group_strides = tuple(group_strides)
    if len(group_strides) != 4 or not set(group_strides) <= {1, 2}:
      raise ValueError(
        "group_strides must be four strides, each 1 or 2, one for each group; received "
        f"{group_strides}."
      )
    if width_multiplier <= 0:
      raise ValueError(f"width_multiplier must be positive; received {width_multiplier!r}.")
    keras = self._keras
    initializer, regularizer = (
      module.serialize(module.get(identifier))
      for module, identifier in (
        (keras.initializers, kernel_initializer),
        (keras.regularizers, kernel_regularizer),
      )
    )
    parts = Parts(
      keras,
      activation,
      norm={"momentum": norm_momentum, "epsilon": norm_epsilon, "synchronized": use_sync_bn},
      # Serialised, so that each layer makes an initializer of its own and draws other values.
      kernel={"kernel_initializer": initializer, "kernel_regularizer": regularizer},
    )
    attention = functools.partial(
      self._attention,
      kernel_size=kernel_size,
      num_heads=num_heads,
      positions=positions,
      content=content,
      border=border,
      implementation=implementation,
      **parts.kernel,
    )
    convolution = functools.partial(parts.convolution, kernel_size=3)
    widths = [scaled_width(width, width_multiplier, 2 * num_heads) for width in WIDTHS]

    images = keras.Input(shape=tuple(input_shape), name="images")
    x = _stem(images, parts, stem, widths[0])
    endpoints = {}
    for group, (width, blocks) in enumerate(zip(widths, BLOCKS[model_id], strict=True), start=1):
      for block in range(1, blocks + 1):
        x = bottleneck_block(
          x,
          parts,
          attention if group in attention_groups else convolution,
          filters=width,
          strides=group_strides[group - 1] if block == 1 else 1,
          project=block == 1,
          name=f"group{group}_block{block}",
        )
      endpoints[str(group + 1)] = x
    super().__init__(inputs=images, outputs=endpoints, **kwargs)

    self.output_specs = {level: endpoint.shape for level, endpoint in endpoints.items()}
    # Not a dict, which both Kerases would wrap and track.
    self._arguments = types.SimpleNamespace(
      model_id=model_id,
      stem=stem,
      attention_groups=attention_groups,
      width_multiplier=width_multiplier,
      kernel_size=kernel_size,
      num_heads=num_heads,
      positions=positions,
      content=content,
      border=border,
      implementation=implementation,
      group_strides=group_strides,
      input_shape=tuple(input_shape),
      activation=activation,
      use_sync_bn=use_sync_bn,
      norm_momentum=norm_momentum,
      norm_epsilon=norm_epsilon,
      kernel_initializer=initializer,
      kernel_regularizer=regularizer,
    )

  def get_config(self) -> dict[str, Any]:
    """Returns the constructor's arguments, serialised."""
    return {"name": self.name, "trainable": self.trainable, **vars(self._arguments)}

  @classmethod
  def from_config(cls, config: dict[str, Any], custom_objects: Any = None):
    """Builds the network from `get_config`'s result."""
    del custom_objects  # the arguments name none
    return cls(**config)
