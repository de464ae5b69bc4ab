"""ResNet with local self-attention in place of the spatial convolutions (paper Sec. 4.1)."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Collection, Sequence
from typing import Any

from sasa_tf.layers.types import Border, ImplementationName, Positions, StemVariant
from sasa_tf.modeling.baselines import (
  Baseline,
  BaselineLayers,
  check_baseline,
  convolutional_stage,
)
from sasa_tf.modeling.blocks import (
  STEMS,
  BlockOperations,
  LayerFactory,
  Stem,
  bottleneck_block,
  build_stem,
)
from sasa_tf.modeling.pooled_stem import PooledStemMixin
from sasa_tf.modeling.presets import PresetMixin

# Bottleneck blocks of the four stages (paper Sec. 4.1).
BLOCKS = {26: (1, 2, 4, 1), 38: (2, 3, 5, 2), 50: (3, 4, 6, 3)}
WIDTHS = (64, 128, 256, 512)


def scaled_width(width: int, multiplier: float, unit: int) -> int:
  """Returns width * multiplier, rounded to the nearest positive multiple of `unit`."""
  return max(1, round(width * multiplier / unit)) * unit


def _check_arguments(
  model_id: int,
  stem: str,
  attention_groups: Any,
  group_strides: tuple[int, ...],
  width_multiplier: float,
  num_heads: int,
  stem_num_heads: int,
) -> None:
  """Raises a ValueError for an argument of `SASAResNet` that is out of range."""
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
      "attention_groups must be a subset of the stages 1, 2, 3 and 4 (1 has the highest "
      f"resolution); received {attention_groups!r}. Use () for the convolutional baseline."
    )
  if len(group_strides) != 4 or not set(group_strides) <= {1, 2}:
    raise ValueError(
      "group_strides must be four strides, each 1 or 2, one for each stage; received "
      f"{group_strides}."
    )
  if not 0 < width_multiplier < math.inf:  # also not NaN
    raise ValueError(
      f"width_multiplier must be positive and finite; received {width_multiplier!r}."
    )


class SASAResNetBase(PooledStemMixin, PresetMixin):
  """ResNet v1.5 with attention in place of the 3x3 convolutions of selected stages.

  `attention_groups=()` gives the convolutional baseline, (1, 2, 3, 4) the paper's fully attentional
  backbone. The first block of a stage halves the resolution: a convolution by its stride, attention
  by average pooling of its output (paper Sec. 3.1). The model has no classification head; see
  `SASAResNetClassifier`. Its outputs are the last feature maps of the stages.

  Input: images [B, H, W, C]. H and W may be unknown in `input_shape`.

  Output: {"2": ..., "3": ..., "4": ..., "5": ...}, [B, H / 2^level, W / 2^level, 4 * width] with
  the default strides. With stem="conv_small", level "2" has the resolution of the input.

  Attributes:
    output_specs: {level: shape of the output}.

  Examples:
    >>> backbone = SASAResNet(model_id=26, input_shape=(224, 224, 3))
    >>> features = backbone(images)["5"]  # [B, 7, 7, 2048]
  """

  _attention: Callable[..., Any]
  _attention_stem: Callable[..., Any]
  _stem_pooling: Callable[..., Any]
  _baselines: BaselineLayers

  def __init__(
    self,
    model_id: int = 50,
    stem: Stem = "conv",
    attention_groups: Collection[int] = (1, 2, 3, 4),
    width_multiplier: float = 1.0,
    kernel_size: int | tuple[int, int] = 7,
    num_heads: int = 8,
    positions: Positions = "relative",
    content: bool = True,
    border: Border = "zero",
    implementation: ImplementationName = "auto",
    *,
    stem_variant: StemVariant = "mixture",
    stem_num_heads: int = 4,
    stem_num_mixtures: int = 8,
    baseline: Baseline = "conv",
    group_strides: Sequence[int] = (1, 2, 2, 2),
    zero_init_residual: bool = True,
    locality_strength: float = 0.0,
    input_shape: tuple[int | None, int | None, int] = (None, None, 3),
    activation: str = "relu",
    use_sync_bn: bool = False,
    norm_momentum: float = 0.9,
    norm_epsilon: float = 1e-5,
    kernel_initializer: Any = "VarianceScaling",
    kernel_regularizer: Any = None,
    **kwargs: Any,
  ):
    """Creates the backbone.

    Args:
      model_id: number of layers, 26, 38 or 50. All variants use bottleneck blocks.
      stem: "conv" is a 7x7 convolution with stride 2 and a 3x3 max pooling with stride 2;
        "conv_small", a 3x3 convolution with stride 1, is for images of about 32 pixels or fewer;
        "attention" is the paper's stem (Sec. 3.2): attention within 4x4 blocks of pixels, batch
        norm and 4x4 max pooling.
      attention_groups: the stages, among 1 to 4, that use attention; the others use `baseline`.
      width_multiplier: factor of the channels of every layer (paper Fig. 5). Widths are rounded to
        the nearest multiple of 2 * num_heads, so that every head has an even width; the width of
        an attention stem is a multiple of 2 * stem_num_heads too.
      kernel_size: window of the attention layers, an odd int or (rows, columns).
      num_heads: heads of every attention layer, including augmented convolutions.
      positions: "relative", "absolute" or "none", including augmented convolutions.
      content: False for attention by relative position only (paper Table 6).
      border: "zero" or "mask", how a neighbor outside the image is treated; see
        `LocalSelfAttention2D`.
      implementation: of the attention, "auto" or one of `sasa_tf.ops.available_implementations()`.
      stem_variant: values of an attention stem, "mixture", "standalone" or "conv_values" (paper
        Table 7); see `AttentionStem`.
      stem_num_heads: heads of an attention stem.
      stem_num_mixtures: value matrices that an attention stem mixes.
      baseline: block type of the stages without attention. "conv": 3x3 convolutions;
        "squeeze_excitation": additionally channel gates of ratio 16 at the end of each block;
        "non_local": additionally a non-local block after every second block of the stages 2 and 3;
        "attention_augmented": global attention concatenated to the 3x3 convolutions of the stages
        2 to 4, which needs H and W in `input_shape` if positions="relative".
      group_strides: stride of the first block of each stage. The default for ImageNet halves the
        resolution three times; smaller images need fewer strides.
      zero_init_residual: whether gamma in the last batch norm of every residual branch is
        initialized to zero, so that the network starts as its shortcuts. Otherwise the gradients of
        a deep attention network explode at initialization: ResNet-50's have a norm above 1e7.
      locality_strength: of the attention layers without the stem; see `LocalSelfAttention2D`. The
        paper has 0.
      input_shape: (H, W, C) of the images; H and W may be None.
      activation: name of the activation.
      use_sync_bn: whether batch norm uses the statistics of all replicas.
      norm_momentum: momentum of the moving averages of batch norm.
      norm_epsilon: epsilon of batch norm.
      kernel_initializer: of convolutions and projections.
      kernel_regularizer: of convolutions and projections.
      **kwargs: Keras arguments (`name`, `trainable`).

    Raises:
      TypeError: there is no such argument.
      ValueError: an argument is out of range.
    """
    self._check_kwargs(kwargs)
    group_strides = tuple(group_strides)
    _check_arguments(
      model_id, stem, attention_groups, group_strides, width_multiplier, num_heads, stem_num_heads
    )
    attention_groups = tuple(sorted(set(attention_groups)))
    check_baseline(baseline, attention_groups)
    keras = self._keras
    # Serialized, so that each layer creates its own initializer and draws different values.
    kernel = {
      "kernel_initializer": keras.initializers.serialize(
        keras.initializers.get(kernel_initializer)
      ),
      "kernel_regularizer": keras.regularizers.serialize(
        keras.regularizers.get(kernel_regularizer)
      ),
    }
    factory = LayerFactory(
      keras,
      activation,
      norm={"momentum": norm_momentum, "epsilon": norm_epsilon, "synchronized": use_sync_bn},
      last_gamma="zeros" if zero_init_residual else "ones",
      kernel=kernel,
    )
    window = {
      "kernel_size": kernel_size,
      "num_heads": num_heads,
      "positions": positions,
      "content": content,
      "border": border,
      "implementation": implementation,
      "locality_strength": locality_strength,
    }
    attention = BlockOperations(functools.partial(self._attention, **window, **kernel))
    stem_attention = functools.partial(
      self._attention_stem,
      num_heads=stem_num_heads,
      num_mixtures=stem_num_mixtures,
      variant=stem_variant,
      **kernel,
    )
    stem_heads = stem_num_heads if stem == "attention" else num_heads
    stem_unit = 2 * math.lcm(num_heads, stem_heads)
    stem_width = scaled_width(WIDTHS[0], width_multiplier, stem_unit)

    images = keras.Input(shape=tuple(input_shape), name="images")
    x = build_stem(images, factory, stem, stem_width, stem_attention, self._stem_pooling)
    endpoints = {}
    for stage in (1, 2, 3, 4):
      operations = attention
      if stage not in attention_groups:
        operations = convolutional_stage(
          stage, baseline, factory, self._baselines, num_heads=num_heads, positions=positions
        )
      x = _build_stage(
        x,
        factory,
        operations,
        blocks=BLOCKS[model_id][stage - 1],
        filters=scaled_width(WIDTHS[stage - 1], width_multiplier, 2 * num_heads),
        strides=group_strides[stage - 1],
        name=f"group{stage}",
      )
      endpoints[str(stage + 1)] = x
    super().__init__(inputs=images, outputs=endpoints, **kwargs)

    self.output_specs = {level: endpoint.shape for level, endpoint in endpoints.items()}
    self._save_init_args(
      model_id=model_id,
      stem=stem,
      attention_groups=attention_groups,
      width_multiplier=width_multiplier,
      **window,
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
      **kernel,
    )

  @classmethod
  def _preset_classes(cls) -> tuple[str, ...]:
    return (cls.__name__, "SASAResNetClassifier")


def _build_stage(
  x: Any,
  factory: LayerFactory,
  operations: BlockOperations,
  *,
  blocks: int,
  filters: int,
  strides: int,
  name: str,
) -> Any:
  """Applies the blocks of one stage, the first of them with `strides`."""
  for block in range(1, blocks + 1):
    x = bottleneck_block(
      x,
      factory,
      operations,
      filters=filters,
      strides=strides if block == 1 else 1,
      project=block == 1,
      name=f"{name}_block{block}",
    )
    context = operations.context
    if context is not None and block % 2 == 0:
      x = context(name=f"{name}_block{block}_context")(x)
  return x
