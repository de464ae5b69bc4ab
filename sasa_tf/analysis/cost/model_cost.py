"""The cost of a model, per layer and in total."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from sasa_tf.analysis.cost.conventions import Convention, find_convention
from sasa_tf.analysis.cost.layer_ops import Shape


@dataclasses.dataclass(frozen=True)
class LayerCost:
  """The cost of one layer call.

  A layer without a rule has None for its operations, FLOPs and bytes.

  Attributes:
    name: "model/layer" for layers of nested models; further calls of a shared layer are "layer:2",
      "layer:3", ...
    type: name of the layer's class.
    output_shape: without the batch dimension; that of the first output if there are several.
    parameters: number of trainable weights; 0 for further calls of a shared layer.
    non_trainable_parameters: number of other weights, such as batch norm's moving averages.
    op_counts: {kind of operation: count} for one image.
    flops: for one image, in the convention of the `ModelCost`.
    activation_bytes: bytes of inputs and outputs for one batch.
    weight_bytes: bytes of the weights.
  """

  name: str
  type: str
  output_shape: Shape
  parameters: int
  non_trainable_parameters: int
  op_counts: Mapping[str, int] | None = None
  flops: int | None = None
  activation_bytes: int | None = None
  weight_bytes: int | None = None

  @property
  def known(self) -> bool:
    """Whether the layer has a rule."""
    return self.op_counts is not None

  @property
  def bytes(self) -> int | None:
    """Bytes of inputs, outputs and weights for one batch."""
    return self.activation_bytes + self.weight_bytes if self.known else None


@dataclasses.dataclass(frozen=True)
class ModelCost:
  """The cost of a forward pass of a model.

  FLOPs are for one image. Bytes are for one batch, if every layer reads its inputs and weights once
  and writes its outputs once. A compiler that fuses layers moves less. Intermediate tensors of a
  layer, such as the logits of attention, depend on the implementation and are not included.

  Attributes:
    model: name of the model.
    input_shapes: shape of each input without the batch dimension, usually (H, W, C).
    convention: for counting FLOPs.
    batch_size: B, for the bytes.
    dtype: of activations and weights in memory.
    layers: one entry per layer call, in the order of execution.
  """

  model: str
  input_shapes: tuple[Shape, ...]
  convention: Convention
  batch_size: int
  dtype: str
  layers: tuple[LayerCost, ...]

  @property
  def unknown(self) -> tuple[LayerCost, ...]:
    """Calls of layers without a rule, which `flops` and `bytes` do not include."""
    return tuple(layer for layer in self.layers if not layer.known)

  @property
  def parameters(self) -> int:
    """Number of trainable weights, including layers without a rule."""
    return sum(layer.parameters for layer in self.layers)

  @property
  def non_trainable_parameters(self) -> int:
    """Number of non-trainable weights, including layers without a rule."""
    return sum(layer.non_trainable_parameters for layer in self.layers)

  @property
  def flops(self) -> int:
    """FLOPs for one image in all layers with a rule."""
    return sum(layer.flops for layer in self.layers if layer.known)

  @property
  def activation_bytes(self) -> int:
    """Bytes of inputs and outputs for one batch, of all layers with a rule."""
    return sum(layer.activation_bytes for layer in self.layers if layer.known)

  @property
  def weight_bytes(self) -> int:
    """Bytes of the weights of all layers with a rule."""
    return sum(layer.weight_bytes for layer in self.layers if layer.known)

  @property
  def bytes(self) -> int:
    """Bytes of activations and weights for one batch."""
    return self.activation_bytes + self.weight_bytes

  def in_convention(self, convention: str | Convention) -> ModelCost:
    """Returns the same cost with FLOPs in another convention."""
    convention = find_convention(convention)
    layers = (
      dataclasses.replace(layer, flops=convention.flops(layer.op_counts)) if layer.known else layer
      for layer in self.layers
    )
    return dataclasses.replace(self, convention=convention, layers=tuple(layers))
