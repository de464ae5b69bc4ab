"""The stem and the bottleneck block of the ResNet, with the spatial operation as an argument."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from types import ModuleType
from typing import Any, Literal, get_args

Stem = Literal["conv", "conv_small", "attention"]
STEMS: tuple[str, ...] = get_args(Stem)

# (filters, strides=..., name=...) -> a layer from [B, H, W, C] to [B, ceil(H / strides),
# ceil(W / strides), filters].
SpatialOperation = Callable[..., Any]


@dataclasses.dataclass(frozen=True)
class BlockOperations:
  """The layers of the blocks of one stage, besides the pointwise convolutions.

  Attributes:
    spatial: creates the operation in the middle of a block.
    recalibration: (name=...) -> a layer that is applied before the addition; or None.
    context: (name=...) -> a layer that is applied after every second block; or None.
  """

  spatial: SpatialOperation
  recalibration: Callable[..., Any] | None = None
  context: Callable[..., Any] | None = None


@dataclasses.dataclass(frozen=True)
class LayerFactory:
  """Creates convolutions, batch norms and activations with the settings of one network.

  Attributes:
    keras: the Keras module.
    activation: name of the activation.
    norm: arguments of every batch norm.
    last_gamma: initializer of gamma in the last batch norm of every residual branch.
    kernel: initializer and regularizer arguments of every convolution and attention layer.
  """

  keras: ModuleType
  activation: str
  norm: dict[str, Any]
  last_gamma: str
  kernel: dict[str, Any]

  def convolution(self, filters: int, kernel_size: int, *, name: str, strides: int = 1) -> Any:
    """Returns a convolution with padding "same" and without bias."""
    return self.keras.layers.Conv2D(
      filters,
      kernel_size,
      strides=strides,
      padding="same",
      data_format="channels_last",
      use_bias=False,
      name=name,
      **self.kernel,
    )

  def normalize(
    self, x: Any, *, name: str, activate: bool = True, gamma_initializer: str = "ones"
  ) -> Any:
    """Applies batch norm and, if `activate`, the activation."""
    x = self.keras.layers.BatchNormalization(
      gamma_initializer=gamma_initializer, name=f"{name}_norm", **self.norm
    )(x)
    return self.activate(x, name=name) if activate else x

  def activate(self, x: Any, *, name: str) -> Any:
    """Applies the activation."""
    return self.keras.layers.Activation(self.activation, name=f"{name}_activation")(x)


def build_stem(
  images: Any,
  factory: LayerFactory,
  stem: Stem,
  filters: int,
  attention: Callable[..., Any],
  pooling: Callable[..., Any],
) -> Any:
  """Applies the layers before the first stage.

  Args:
    images: symbolic [B, H, W, C].
    factory: of the network.
    stem: "conv" is ResNet's stem: a 7x7 convolution with stride 2 and a 3x3 max pooling with
      stride 2. "conv_small" is a 3x3 convolution with stride 1. "attention" is the paper's stem
      (Sec. 3.2): attention within blocks of pixels, batch norm, and max pooling over each block,
      without an activation because the paper names none.
    filters: output channels.
    attention: (filters, name=...) -> the layer of an attention stem.
    pooling: creates the max pooling of an attention stem, with the arguments of `MaxPooling2D`.

  Returns:
    Symbolic [B, ceil(H / 4), ceil(W / 4), filters]; [B, H, W, filters] for "conv_small".
  """
  layers = factory.keras.layers
  if stem == "attention":
    attend = attention(filters, name="stem")
    x = factory.normalize(attend(images), name="stem", activate=False)
    pool = pooling(attend.block_size, padding="same", data_format="channels_last", name="stem_pool")
    return pool(x)
  kernel_size, strides = (7, 2) if stem == "conv" else (3, 1)
  x = factory.convolution(filters, kernel_size, strides=strides, name="stem")(images)
  x = factory.normalize(x, name="stem")
  if stem == "conv":
    pool = layers.MaxPooling2D(
      3, strides=2, padding="same", data_format="channels_last", name="stem_pool"
    )
    x = pool(x)
  return x


def bottleneck_block(
  x: Any,
  factory: LayerFactory,
  operations: BlockOperations,
  *,
  filters: int,
  strides: int,
  project: bool,
  name: str,
) -> Any:
  """Applies pointwise reduction, spatial operation and pointwise expansion, and adds the shortcut.

  Args:
    x: symbolic [B, H, W, C].
    factory: of the network.
    operations: of the stage; the spatial operation has the stride (ResNet v1.5).
    filters: width of the spatial operation; the output has 4 * filters channels.
    strides: 1, or 2 to halve the resolution.
    project: whether the shortcut is a strided pointwise convolution instead of the identity.
    name: prefix of the layer names.

  Returns:
    Symbolic [B, ceil(H / strides), ceil(W / strides), 4 * filters].
  """
  shortcut = x
  if project:
    shortcut = factory.convolution(4 * filters, 1, strides=strides, name=f"{name}_shortcut")(x)
    shortcut = factory.normalize(shortcut, name=f"{name}_shortcut", activate=False)
  x = factory.convolution(filters, 1, name=f"{name}_reduce")(x)
  x = factory.normalize(x, name=f"{name}_reduce")
  x = operations.spatial(filters, strides=strides, name=f"{name}_spatial")(x)
  x = factory.normalize(x, name=f"{name}_spatial")
  x = factory.convolution(4 * filters, 1, name=f"{name}_expand")(x)
  x = factory.normalize(
    x, name=f"{name}_expand", activate=False, gamma_initializer=factory.last_gamma
  )
  if operations.recalibration:
    x = operations.recalibration(name=f"{name}_recalibration")(x)
  x = factory.keras.layers.Add(name=f"{name}_add")([x, shortcut])
  return factory.activate(x, name=name)
