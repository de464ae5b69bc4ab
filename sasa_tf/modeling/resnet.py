"""ResNet whose spatial convolutions are exchanged for local self-attention (paper Sec. 4.1)."""

from __future__ import annotations

import functools
import math
from collections.abc import Collection, Sequence
from typing import Any

from sasa_tf.modeling.baselines import check_baseline, convolutional_group
from sasa_tf.modeling.blocks import Operations, Parts, bottleneck_block
from sasa_tf.modeling.serializable import ConfiguredModel
from sasa_tf.modeling.stems import STEMS, build_stem

# Bottleneck blocks in each of the four groups (paper Sec. 4.1).
BLOCKS = {26: (1, 2, 4, 1), 38: (2, 3, 5, 2), 50: (3, 4, 6, 3)}
WIDTHS = (64, 128, 256, 512)


def scaled_width(width: int, multiplier: float, unit: int) -> int:
  """Returns width * multiplier, rounded to the nearest positive multiple of `unit`."""
  return max(1, round(width * multiplier / unit)) * unit


class SASAResNetBase(ConfiguredModel):
  """ResNet v1.5 with attention in the place of the 3x3 convolutions of chosen groups.

  With `attention_groups=()` it is the convolutional baseline, with (1, 2, 3, 4) the paper's fully
  attentional body. A group's first block halves the resolution: a convolution by its stride,
  attention by average pooling after it (paper Sec. 3.1). No classifier: the outputs are the last
  feature maps of the groups.

  Input: images [B, H, W, C]; `input_shape` may leave H and W unknown.
  Output: {"2": ..., "3": ..., "4": ..., "5": ...}, [B, H/2^level, W/2^level, 4 * width] with the
  default strides; with the stem "conv_small" the level "2" has the input's resolution.
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
    stem_variant: str = "mixture",
    stem_num_heads: int = 4,
    stem_num_mixtures: int = 8,
    baseline: str = "conv",
    group_strides: Sequence[int] = (1, 2, 2, 2),
    zero_init_residual: bool = True,
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
        3x3 convolution of stride 1, suits images of about 32 pixels or fewer; "attention" is the
        paper's attention inside of 4x4 blocks, batch norm and 4x4 max pool (Sec. 3.2).
      attention_groups: which of the groups 1 to 4 use attention; the others are the `baseline`.
      width_multiplier: scales the channels of every layer (paper Fig. 5), rounded to the nearest
        multiple of 2 * num_heads, so that every head has an even width; that of an attention stem
        to a multiple of 2 * stem_num_heads too.
      kernel_size: window of the attention layers, odd int or (rows, columns).
      num_heads: heads of every attention layer, augmented convolutions' too.
      positions: "relative", "absolute" or "none", of augmented convolutions too.
      content: False for attention by relative position alone (paper Table 6).
      border: "zero" or "mask", what a neighbour outside of the image is.
      implementation: of the attention, "auto" or one of `sasa_tf.ops.available_implementations()`.
      baseline: what the groups without attention are made of. "conv": 3x3 convolutions;
        "squeeze_excitation": with gates of ratio 16 at the end of each block; "non_local": with
        a non-local block after every second block of the groups 2 and 3; "attention_augmented":
        with global attention beside the 3x3 convolutions of the groups 2 to 4, which with
        positions="relative" needs the H and W of `input_shape`.
      stem_variant: of an attention stem's values, "mixture", "standalone" or "conv_values" (paper
        Table 7); see `AttentionStem`.
      stem_num_heads: heads of an attention stem.
      stem_num_mixtures: value matrices that an attention stem mixes.
      group_strides: stride of the first block of each group. ImageNet's default halves the
        resolution three times; images of few pixels want less.
      zero_init_residual: whether every residual branch starts as zero, by the gamma of its last
        batch norm, so that the network starts as its shortcuts. Without it the gradients of a deep
        attention network explode at initialisation: ResNet-50's have a norm of 1e7 and more.
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
    if min(num_heads, stem_num_heads) < 1:
      raise ValueError(
        "num_heads and stem_num_heads must be positive; received "
        f"num_heads={num_heads!r}, stem_num_heads={stem_num_heads!r}."
      )
    if not isinstance(attention_groups, Collection) or not set(attention_groups) <= {1, 2, 3, 4}:
      raise ValueError(
        "attention_groups must name groups among 1, 2, 3 and 4 (1 has the highest resolution); "
        f"received {attention_groups!r}. Use () for the convolutional baseline."
      )
    attention_groups = tuple(sorted(set(attention_groups)))
    group_strides = tuple(group_strides)
    if len(group_strides) != 4 or not set(group_strides) <= {1, 2}:
      raise ValueError(
        "group_strides must be four strides, each 1 or 2, one for each group; received "
        f"{group_strides}."
      )
    check_baseline(baseline, attention_groups)
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
      last_gamma="zeros" if zero_init_residual else "ones",
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
    widths = [scaled_width(width, width_multiplier, 2 * num_heads) for width in WIDTHS]
    stem_attention = functools.partial(
      self._attention_stem,
      num_heads=stem_num_heads,
      num_mixtures=stem_num_mixtures,
      variant=stem_variant,
      **parts.kernel,
    )
    stem_heads = stem_num_heads if stem == "attention" else num_heads
    stem_unit = 2 * math.lcm(num_heads, stem_heads)
    stem_width = scaled_width(WIDTHS[0], width_multiplier, stem_unit)

    images = keras.Input(shape=tuple(input_shape), name="images")
    x = build_stem(images, parts, stem, stem_width, stem_attention)
    endpoints = {}
    for group, (width, blocks) in enumerate(zip(widths, BLOCKS[model_id], strict=True), start=1):
      operations = (
        Operations(attention)
        if group in attention_groups
        else convolutional_group(
          group, baseline, parts, self._baselines, num_heads=num_heads, positions=positions
        )
      )
      for block in range(1, blocks + 1):
        x = bottleneck_block(
          x,
          parts,
          operations,
          filters=width,
          strides=group_strides[group - 1] if block == 1 else 1,
          project=block == 1,
          name=f"group{group}_block{block}",
        )
        if operations.context and block % 2 == 0:
          x = operations.context(name=f"group{group}_block{block}_context")(x)
      endpoints[str(group + 1)] = x
    super().__init__(inputs=images, outputs=endpoints, **kwargs)

    self.output_specs = {level: endpoint.shape for level, endpoint in endpoints.items()}
    self._remember(
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
      stem_variant=stem_variant,
      stem_num_heads=stem_num_heads,
      stem_num_mixtures=stem_num_mixtures,
      baseline=baseline,
      group_strides=group_strides,
      zero_init_residual=zero_init_residual,
      input_shape=tuple(input_shape),
      activation=activation,
      use_sync_bn=use_sync_bn,
      norm_momentum=norm_momentum,
      norm_epsilon=norm_epsilon,
      kernel_initializer=initializer,
      kernel_regularizer=regularizer,
    )
