"""What a model costs, by layer and in all."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from sasa_tf.analysis.cost.conventions import Convention, find_convention
from sasa_tf.analysis.cost.layer_ops import Shape


@dataclasses.dataclass(frozen=True)
class LayerCost:
  """What one call of a layer costs.

  Attributes:
    name: of the layer; that of nested models before it, with slashes, and the number of the call
      after it, with a colon, from the second on.
    type: name of the layer's class.
    output_shape: without the batch; of the first output, where there are several.
    parameters: weights that training moves; 0 from the second call on.
    statistics: weights that it does not, such as batch norm's moving averages.
    work: {kind of work: how often} for one image, or None for a foreign layer.
    flops: of one image, in the convention of the `ModelCost`; None for a foreign layer.
    activation_bytes: read and written of one batch; None for a foreign layer.
    weight_bytes: read; None for a foreign layer.
  """

  name: str
  type: str
  output_shape: Shape
  parameters: int
  statistics: int
  work: Mapping[str, int] | None = None
  flops: int | None = None
  activation_bytes: int | None = None
  weight_bytes: int | None = None

  @property
  def known(self) -> bool:
    """Whether there is a rule for the layer."""
    return self.work is not None

  @property
  def bytes(self) -> int | None:
    """Read and written by one batch."""
    return self.activation_bytes + self.weight_bytes if self.known else None


@dataclasses.dataclass(frozen=True)
class ModelCost:
  """What a forward pass of a model costs.

  FLOPs are those of one image. Bytes are those of one batch if every layer reads its inputs and
  its weights once and writes its outputs once: what a perfect implementation of each layer moves
  to and from memory, and less where a compiler fuses several. What a layer keeps to itself, such
  as the logits of attention, is not among them, as it depends on the implementation.

  Attributes:
    model: name of the model.
    input_shapes: of the model's inputs, each (H, W, C), or whatever follows the batch.
    convention: what counts as a FLOP.
    batch_size: B, of the bytes.
    dtype: of activations and weights when they are read and written.
    layers: one entry a call, in the order of execution.
  """

  model: str
  input_shapes: tuple[Shape, ...]
  convention: Convention
  batch_size: int
  dtype: str
  layers: tuple[LayerCost, ...]

  @property
  def unknown(self) -> tuple[LayerCost, ...]:
    """The foreign layers. With any, `flops` and `bytes` are those of the others alone."""
    return tuple(layer for layer in self.layers if not layer.known)

  @property
  def parameters(self) -> int:
    """Weights that training moves, those of foreign layers included."""
    return sum(layer.parameters for layer in self.layers)

  @property
  def statistics(self) -> int:
    """Weights that training does not move, those of foreign layers included."""
    return sum(layer.statistics for layer in self.layers)

  @property
  def flops(self) -> int:
    """FLOPs of one image in all known layers."""
    return sum(layer.flops for layer in self.layers if layer.known)

  @property
  def activation_bytes(self) -> int:
    """Bytes of activations of one batch, read and written by all known layers."""
    return sum(layer.activation_bytes for layer in self.layers if layer.known)

  @property
  def weight_bytes(self) -> int:
    """Bytes of weights, read by all known layers."""
    return sum(layer.weight_bytes for layer in self.layers if layer.known)

  @property
  def bytes(self) -> int:
    """Bytes of activations and weights."""
    return self.activation_bytes + self.weight_bytes

  def in_convention(self, convention: str | Convention) -> ModelCost:
    """Returns the same with FLOPs counted in another convention."""
    convention = find_convention(convention)
    layers = (
      dataclasses.replace(layer, flops=convention.flops(layer.work)) if layer.known else layer
      for layer in self.layers
    )
    return dataclasses.replace(self, convention=convention, layers=tuple(layers))
