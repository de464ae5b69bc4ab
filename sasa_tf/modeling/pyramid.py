"""What the feature pyramid and the detection head share: levels and the spatial operation.

Level n has the resolution of the image divided by 2^n.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import Any, Literal, get_args

from sasa_tf.modeling.blocks import SpatialOperation

Spatial = Literal["conv", "attention"]
SPATIAL: tuple[str, ...] = get_args(Spatial)


def sorted_levels(input_specs: Mapping[str, Sequence[int | None]]) -> tuple[int, ...]:
  """Returns the levels of `input_specs` from the finest to the coarsest.

  Args:
    input_specs: {level: shape (B, H, W, C)}.

  Raises:
    ValueError: the keys are not consecutive integers written as strings.
  """
  levels = sorted(int(level) for level in input_specs if str(level).isdecimal())
  consecutive = list(range(levels[0], levels[0] + len(levels))) if levels else None
  if len(levels) != len(input_specs) or levels != consecutive:
    raise ValueError(
      "input_specs must be {level: shape (B, H, W, C)} of consecutive levels, as the output_specs "
      f"of a backbone or a pyramid; received the keys {list(input_specs)}."
    )
  return tuple(levels)


def level_inputs(
  keras: ModuleType, input_specs: Mapping[str, Sequence[int | None]]
) -> dict[str, Any]:
  """Returns symbolic inputs {level: [B, H, W, C]}."""
  return {
    str(level): keras.Input(shape=tuple(input_specs[str(level)])[1:], name=str(level))
    for level in sorted_levels(input_specs)
  }


def spatial_operation(
  spatial: Spatial,
  keras: ModuleType,
  attention: Callable[..., Any],
  window: dict[str, Any],
  kernel: dict[str, Any],
  attention_kernel: dict[str, Any] | None = None,
) -> SpatialOperation:
  """Returns a 3x3 convolution with bias or local self-attention.

  Args:
    spatial: "conv" or "attention".
    keras: the Keras module.
    attention: the `LocalSelfAttention2D` of that Keras version.
    window: arguments of attention only: `kernel_size`, `num_heads` and so on.
    kernel: initializer and regularizer arguments.
    attention_kernel: these arguments for attention, if they differ.

  Raises:
    ValueError: `spatial` is unknown.
  """
  if spatial not in SPATIAL:
    raise ValueError(f"spatial must be one of {SPATIAL}; received {spatial!r}.")
  if spatial == "attention":
    return functools.partial(attention, **window, **(attention_kernel or kernel))
  return functools.partial(
    keras.layers.Conv2D, kernel_size=3, padding="same", data_format="channels_last", **kernel
  )


def add_shortcut(layers: ModuleType, x: Any, attended: Any, *, strides: int, name: str) -> Any:
  """Adds the input of an attention layer to its output.

  Args:
    layers: the module of the Keras layers.
    x: input of the attention, symbolic [B, H, W, C].
    attended: its output, symbolic [B, ceil(H / strides), ceil(W / strides), filters].
    strides: of the attention; the input is average-pooled like its output.
    name: of the addition.

  Returns:
    The sum, or `attended` if the numbers of channels differ.
  """
  if x.shape[-1] != attended.shape[-1]:
    return attended
  if strides > 1:
    pool = layers.AveragePooling2D(
      strides, padding="same", data_format="channels_last", name=f"{name}_pool"
    )
    x = pool(x)
  return layers.Add(name=name)([x, attended])
