"""The residual block and its parts; what it is made of is an argument."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from types import ModuleType
from typing import Any

# (filters, strides=..., name=...) -> a layer from [B, H, W, C] to [B, ceil(H / strides),
# ceil(W / strides), filters].
SpatialOperation = Callable[..., Any]


@dataclasses.dataclass(frozen=True)
class Operations:
  """What the blocks of a group are made of, beside pointwise convolutions.

  Attributes:
    spatial: the operation in the middle of a block.
    recalibration: (name=...) -> a layer on the expansion's output, before the addition; or None.
    context: (name=...) -> a layer after every second block; or None.
  """

  spatial: SpatialOperation
  recalibration: Callable[..., Any] | None = None
  context: Callable[..., Any] | None = None


@dataclasses.dataclass(frozen=True)
class Parts:
  """Makes the layers that all blocks of a network share, of one Keras and one setting.

  Attributes:
    keras: the Keras module.
    activation: name of the non-linearity.
    norm: arguments of every batch normalization.
    last_gamma: initializer of the gamma of every residual branch's last batch normalization.
    kernel: arguments of every convolution and attention layer: initializer and regularizer.
  """

  keras: ModuleType
  activation: str
  norm: dict[str, Any]
  last_gamma: str
  kernel: dict[str, Any]

  def convolution(self, filters: int, kernel_size: int, *, name: str, strides: int = 1) -> Any:
    """Returns a convolution without bias, padded to keep the size; a `SpatialOperation` too."""
    return self.keras.layers.Conv2D(
      filters,
      kernel_size,
      strides=strides,
      padding="same",
      use_bias=False,
      name=name,
      **self.kernel,
    )

  def normalize(
    self, x: Any, *, name: str, activate: bool = True, gamma_initializer: str = "ones"
  ) -> Any:
    """Applies batch norm and, if asked, the non-linearity."""
    x = self.keras.layers.BatchNormalization(
      gamma_initializer=gamma_initializer, name=f"{name}_norm", **self.norm
    )(x)
    return self.activate(x, name=name) if activate else x

  def activate(self, x: Any, *, name: str) -> Any:
    """Applies the non-linearity."""
    return self.keras.layers.Activation(self.activation, name=f"{name}_activation")(x)


def bottleneck_block(
  x: Any,
  parts: Parts,
  operations: Operations,
  *,
  filters: int,
  strides: int,
  project: bool,
  name: str,
) -> Any:
  """Pointwise reduction, spatial operation, pointwise expansion, plus the shortcut.

  Args:
    x: symbolic [B, H, W, C].
    parts: of the network.
    operations: of the group; the spatial one carries the stride (ResNet v1.5).
    filters: width of the spatial operation; the output has four times as many channels.
    strides: 1, or 2 to halve the resolution.
    project: whether the shortcut is a strided pointwise convolution instead of the identity.
    name: prefix of the layers' names.

  Returns:
    Symbolic [B, ceil(H / strides), ceil(W / strides), 4 * filters].
  """
  shortcut = x
  if project:
    shortcut = parts.convolution(4 * filters, 1, strides=strides, name=f"{name}_shortcut")(x)
    shortcut = parts.normalize(shortcut, name=f"{name}_shortcut", activate=False)
  x = parts.convolution(filters, 1, name=f"{name}_reduce")(x)
  x = parts.normalize(x, name=f"{name}_reduce")
  x = operations.spatial(filters, strides=strides, name=f"{name}_spatial")(x)
  x = parts.normalize(x, name=f"{name}_spatial")
  x = parts.convolution(4 * filters, 1, name=f"{name}_expand")(x)
  x = parts.normalize(x, name=f"{name}_expand", activate=False, gamma_initializer=parts.last_gamma)
  if operations.recalibration:
    x = operations.recalibration(name=f"{name}_recalibration")(x)
  x = parts.keras.layers.Add(name=f"{name}_add")([x, shortcut])
  return parts.activate(x, name=name)
