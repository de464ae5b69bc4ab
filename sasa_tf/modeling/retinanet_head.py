"""RetinaNet's head, of convolutions or of attention (paper App. A.3)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from sasa_tf.modeling.levels import level_inputs, sorted_levels
from sasa_tf.modeling.serializable import ConfiguredModel
from sasa_tf.modeling.spatial_operations import spatial_operation

# Probability that every class starts with, pi in Lin et al. 2017 (arXiv 1708.02002, Sec. 4.1).
PRIOR = 0.01
# Standard deviation of all kernels of convolutions (there), and of the value projections of
# attention (paper App. A.3).
STDDEV = 0.01
BOX_PARAMETERS = 4


class RetinaNetHeadBase(ConfiguredModel):
  """Class scores and boxes for every anchor: two towers, each shared by all levels.

  A tower is `num_layers` times a spatial operation, batch norm and a non-linearity, then the
  predictor. Kernels are shared by the levels; batch norm is each level's own, as the levels'
  statistics differ. With spatial="conv" it computes what Model Garden's `RetinaNetHead` does. With
  "attention" every 3x3 convolution becomes local self-attention, that of the predictor too, which
  an extra pointwise convolution then ends (paper App. A.3).

  Input: {level: [B, H, W, C]} of a pyramid, all levels of `input_specs`, of one C.
  Output: ({level: class logits [B, H, W, num_anchors * num_classes]},
  {level: boxes [B, H, W, num_anchors * 4]}); in the last axis anchors come before classes.

  Example:
    >>> head = RetinaNetHead(pyramid.output_specs, num_classes=90, num_anchors=6)
    >>> scores, boxes = head(pyramid(backbone(images)))
    >>> scores["3"]  # [B, ceil(H / 8), ceil(W / 8), 540]
  """

  def __init__(
    self,
    input_specs: Mapping[str, Sequence[int | None]],
    num_classes: int,
    num_anchors: int,
    num_layers: int = 4,
    num_filters: int = 256,
    spatial: str = "attention",
    kernel_size: int | tuple[int, int] = 7,
    num_heads: int = 8,
    positions: str = "relative",
    border: str = "zero",
    implementation: str = "auto",
    *,
    use_batch_norm: bool = True,
    activation: str = "relu",
    use_sync_bn: bool = False,
    norm_momentum: float = 0.99,
    norm_epsilon: float = 1e-3,
    kernel_regularizer: Any = None,
    **kwargs: Any,
  ):
    """Builds the head.

    Args:
      input_specs: {level: shape (B, H, W, C)} of the pyramid, its `output_specs`.
      num_classes: of objects, background not counted.
      num_anchors: anchors at each place of a level.
      num_layers: spatial operations of a tower before the predictor.
      num_filters: channels of the towers; for attention a multiple of 2 * num_heads.
      spatial: "attention" or "conv".
      kernel_size: window of attention, odd int or (rows, columns).
      num_heads: heads of attention.
      positions: "relative", "absolute" or "none".
      border: "zero" or "mask", what a neighbour outside of the map is.
      implementation: of the attention, "auto" or one of `sasa_tf.ops.available_implementations()`.
      use_batch_norm: whether batch norm follows each operation of a tower.
      activation: name of the non-linearity.
      use_sync_bn: whether batch norm sees the batch of all replicas.
      norm_momentum: of batch norm's moving averages.
      norm_epsilon: of batch norm.
      kernel_regularizer: of convolutions and projections.
      **kwargs: Keras's own (`name`, `trainable`).

    Raises:
      ValueError: an argument out of range; the message says which, and how to mend it.
    """
    levels = sorted_levels(input_specs)
    channels = {tuple(shape)[-1] for shape in input_specs.values()}
    if len(channels) != 1 or None in channels:
      raise ValueError(
        "the towers are shared by all levels, so input_specs must have the same known number of "
        f"channels at each; received {dict(input_specs)}."
      )
    for name, count in {"num_classes": num_classes, "num_anchors": num_anchors}.items():
      if not isinstance(count, int) or count < 1:
        raise ValueError(f"{name} must be a positive int; received {count!r}.")
    if not isinstance(num_layers, int) or num_layers < 0:
      raise ValueError(f"num_layers must be 0 or a positive int; received {num_layers!r}.")
    keras = self._keras
    layers = keras.layers
    regularizer = keras.regularizers.serialize(keras.regularizers.get(kernel_regularizer))

    # Serialised, so that each layer makes an initializer of its own and draws other values.
    normal = keras.initializers.serialize(keras.initializers.RandomNormal(stddev=STDDEV))
    kernel = {"kernel_initializer": normal, "kernel_regularizer": regularizer}
    values = {"value_initializer": normal, "kernel_regularizer": regularizer}
    window = {
      "kernel_size": kernel_size,
      "num_heads": num_heads,
      "positions": positions,
      "border": border,
      "implementation": implementation,
    }
    operation = spatial_operation(spatial, keras, self._attention, window, kernel, values)

    def normalize(x, name):
      if use_batch_norm:
        norm = layers.BatchNormalization(
          momentum=norm_momentum,
          epsilon=norm_epsilon,
          synchronized=use_sync_bn,
          name=f"{name}_norm",
        )
        x = norm(x)
      return layers.Activation(activation, name=f"{name}_activation")(x)

    def predictor(outputs, bias, name):
      """Returns the layers that end a tower."""
      convolution = layers.Conv2D(
        outputs,
        3 if spatial == "conv" else 1,
        padding="same",
        bias_initializer=keras.initializers.Constant(bias),
        name=name,
        **kernel,
      )
      # The predictor has no non-linearity inside, as the convolution that it stands for has none.
      last = [operation(num_filters, name=f"{name}_spatial")] if spatial == "attention" else []
      return [*last, convolution]

    def tower(name, outputs, bias, inputs):
      shared = [operation(num_filters, name=f"{name}_{i}") for i in range(1, num_layers + 1)]
      last = predictor(outputs, bias, f"{name}_predictor")
      predictions = {}
      for level, x in inputs.items():
        for layer in shared:
          x = normalize(layer(x), f"{layer.name}_level_{level}")
        for layer in last:
          x = layer(x)
        predictions[level] = x
      return predictions

    inputs = level_inputs(keras, input_specs)
    bias = -math.log((1 - PRIOR) / PRIOR)
    scores = tower("classes", num_anchors * num_classes, bias, inputs)
    boxes = tower("boxes", num_anchors * BOX_PARAMETERS, 0.0, inputs)
    super().__init__(inputs=inputs, outputs=(scores, boxes), **kwargs)

    self._remember(
      input_specs={str(level): tuple(input_specs[str(level)]) for level in levels},
      num_classes=num_classes,
      num_anchors=num_anchors,
      num_layers=num_layers,
      num_filters=num_filters,
      spatial=spatial,
      **window,
      use_batch_norm=use_batch_norm,
      activation=activation,
      use_sync_bn=use_sync_bn,
      norm_momentum=norm_momentum,
      norm_epsilon=norm_epsilon,
      kernel_regularizer=regularizer,
    )
