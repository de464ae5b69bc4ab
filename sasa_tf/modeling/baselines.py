"""Stages without stand-alone attention: convolutions, and the baselines of the introduction.

The baselines add attention to convolutions; the paper replaces convolutions with attention.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Collection
from typing import Any, Literal

from sasa_tf.layers.types import Positions
from sasa_tf.modeling.blocks import BlockOperations, LayerFactory

Baseline = Literal["conv", "squeeze_excitation", "non_local", "attention_augmented"]

# Name -> the stages that it changes.
BASELINES: dict[str, tuple[int, ...]] = {
  "conv": (),
  # Hu et al. 2018: channel gates at the end of each block, before the addition.
  "squeeze_excitation": (1, 2, 3, 4),
  # Wang et al. 2018: non-local blocks between the residual blocks of res3 and res4.
  "non_local": (2, 3),
  # Bello et al. 2019: the last three stages.
  "attention_augmented": (2, 3, 4),
}

SQUEEZE_RATIO = 16
# Fractions of the channels that attention augmentation uses for keys and values (kappa and upsilon
# in Bello et al. 2019), and the minimum number of key channels of a head.
KEY_FRACTION = 0.2
VALUE_FRACTION = 0.1
MIN_KEY_HEAD_DIM = 20


@dataclasses.dataclass(frozen=True)
class BaselineLayers:
  """The layer classes of the baselines, from one Keras binding."""

  squeeze_excitation: Callable[..., Any]
  non_local: Callable[..., Any]
  attention_augmented: Callable[..., Any]


def check_baseline(baseline: str, attention_groups: Collection[int]) -> None:
  """Checks that the baseline exists and changes at least one stage.

  Raises:
    ValueError: it does not.
  """
  if baseline not in BASELINES:
    raise ValueError(f"baseline must be one of {tuple(BASELINES)}; received {baseline!r}.")
  stages = BASELINES[baseline]
  if stages and set(stages) <= set(attention_groups):
    raise ValueError(
      f"baseline={baseline!r} changes the convolutional ones among the stages {stages}; expected "
      f"at least one, received attention_groups={tuple(attention_groups)}, which leaves none. Use "
      "attention_groups=() for the baseline alone."
    )


def _augmented(layer, factory, num_heads, positions, filters, **arguments) -> Any:
  """Returns an attention-augmented 3x3 convolution with the widths of Bello et al. 2019."""

  def width(fraction, minimum):  # of all heads together
    return num_heads * max(minimum, round(fraction * filters / num_heads))

  return layer(
    filters,
    kernel_size=3,
    key_filters=width(KEY_FRACTION, MIN_KEY_HEAD_DIM),
    value_filters=width(VALUE_FRACTION, 1),
    num_heads=num_heads,
    positions=positions,
    **factory.kernel,
    **arguments,
  )


def convolutional_stage(
  stage: int,
  baseline: Baseline,
  factory: LayerFactory,
  layers: BaselineLayers,
  *,
  num_heads: int,
  positions: Positions,
) -> BlockOperations:
  """Returns the operations of a stage without stand-alone attention.

  Args:
    stage: 1 to 4.
    baseline: key of `BASELINES`.
    factory: of the network.
    layers: layer classes of the network's Keras binding.
    num_heads: heads of attention augmentation.
    positions: positions of attention augmentation.
  """
  convolution = functools.partial(factory.convolution, kernel_size=3)
  if stage not in BASELINES[baseline]:
    return BlockOperations(convolution)
  if baseline == "squeeze_excitation":
    gates = functools.partial(layers.squeeze_excitation, SQUEEZE_RATIO, **factory.kernel)
    return BlockOperations(convolution, recalibration=gates)
  if baseline == "non_local":
    non_local = functools.partial(
      layers.non_local,
      norm_momentum=factory.norm["momentum"],
      norm_epsilon=factory.norm["epsilon"],
      use_sync_bn=factory.norm["synchronized"],
      **factory.kernel,
    )
    return BlockOperations(convolution, context=non_local)
  return BlockOperations(
    functools.partial(_augmented, layers.attention_augmented, factory, num_heads, positions)
  )
