"""What convolutional groups are made of, with the baselines that the paper's introduction names.

Each adds attention to convolutions, where the paper puts attention in the place of convolutions.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Collection
from typing import Any

from sasa_tf.modeling.blocks import Operations, Parts

# Name -> the groups that it changes.
BASELINES = {
  "conv": (),
  # Hu et al. 2018: gates end each block, before the addition.
  "squeeze_excitation": (1, 2, 3, 4),
  # Wang et al. 2018: blocks in between, in their res3 and res4.
  "non_local": (2, 3),
  # Bello et al. 2019: the last three stages.
  "attention_augmented": (2, 3, 4),
}

SQUEEZE_RATIO = 16
# Attention augmentation gives keys and values these parts of the channels (its paper's kappa and
# upsilon), and keys no fewer than so many in each head.
KEY_PART = 0.2
VALUE_PART = 0.1
MIN_KEY_HEAD_DIM = 20


@dataclasses.dataclass(frozen=True)
class BaselineLayers:
  """The layers' classes, of one Keras."""

  squeeze_excitation: Callable[..., Any]
  non_local: Callable[..., Any]
  attention_augmented: Callable[..., Any]


def check_baseline(baseline: str, attention_groups: Collection[int]) -> None:
  """Raises a ValueError on an unknown name, or on a baseline that would change no group."""
  if baseline not in BASELINES:
    raise ValueError(f"baseline must be one of {tuple(BASELINES)}; received {baseline!r}.")
  groups = BASELINES[baseline]
  if groups and set(groups) <= set(attention_groups):
    raise ValueError(
      f"baseline={baseline!r} changes the convolutional ones of the groups {groups}, expected one "
      f"at least; received attention_groups={tuple(attention_groups)}, which leaves none. Use "
      "attention_groups=() for the baseline alone."
    )


def _augmented(layer, parts, num_heads, positions, filters, **arguments) -> Any:
  """An attention-augmented 3x3 convolution with its paper's widths."""

  def width(part, minimum):  # in all heads together
    return num_heads * max(minimum, round(part * filters / num_heads))

  return layer(
    filters,
    kernel_size=3,
    key_filters=width(KEY_PART, MIN_KEY_HEAD_DIM),
    value_filters=width(VALUE_PART, 1),
    num_heads=num_heads,
    positions=positions,
    **parts.kernel,
    **arguments,
  )


def convolutional_group(
  group: int,
  baseline: str,
  parts: Parts,
  layers: BaselineLayers,
  *,
  num_heads: int,
  positions: str,
) -> Operations:
  """Returns what the blocks of a group without stand-alone attention are made of.

  Args:
    group: 1 to 4.
    baseline: a name of `BASELINES`.
    parts: of the network.
    layers: of the network's Keras.
    num_heads: of attention augmentation.
    positions: of attention augmentation.
  """
  convolution = functools.partial(parts.convolution, kernel_size=3)
  if group not in BASELINES[baseline]:
    return Operations(convolution)
  if baseline == "squeeze_excitation":
    gates = functools.partial(layers.squeeze_excitation, SQUEEZE_RATIO, **parts.kernel)
    return Operations(convolution, recalibration=gates)
  if baseline == "non_local":
    non_local = functools.partial(
      layers.non_local,
      norm_momentum=parts.norm["momentum"],
      norm_epsilon=parts.norm["epsilon"],
      use_sync_bn=parts.norm["synchronized"],
      **parts.kernel,
    )
    return Operations(convolution, context=non_local)
  return Operations(
    functools.partial(_augmented, layers.attention_augmented, parts, num_heads, positions)
  )
