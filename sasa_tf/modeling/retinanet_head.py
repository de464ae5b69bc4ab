"""RetinaNet's detection head with convolutions or local self-attention (paper App. A.3)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sasa_tf.layers.types import Border, ImplementationName, Positions
from sasa_tf.modeling.pyramid import (
  Spatial,
  add_shortcut,
  level_inputs,
  sorted_levels,
  spatial_operation,
)
from sasa_tf.modeling.serializable import SerializableModel

# Initial probability of every class, pi in Lin et al. 2017 (arXiv 1708.02002, Sec. 4.1).
PRIOR = 0.01
# Initial standard deviation of the convolution kernels (ibid.) and of the value projections of the
# attention (paper App. A.3).
STDDEV = 0.01
BOX_PARAMETERS = 4


class RetinaNetHeadBase(SerializableModel):
  """Predicts class scores and boxes of every anchor with two towers shared by all levels.

  A tower is `num_layers` spatial operations, each followed by batch norm and the activation, and a
  predictor. All levels share the kernels; each level has its own batch norms, because the
  statistics of the levels differ. With spatial="conv" it computes the same function as Model
  Garden's `RetinaNetHead`. With "attention" every 3x3 convolution becomes local self-attention,
  including the predictor's, which an additional pointwise convolution follows (paper App. A.3).

  Input: {level: [B, H, W, C]} from a pyramid, with all levels of `input_specs`. All levels have the
  same C.

  Output: ({level: class logits [B, H, W, num_anchors * num_classes]},
  {level: boxes [B, H, W, num_anchors * 4]}). Anchors are the outer dimension of the last axis.

  Examples:
    >>> head = RetinaNetHead(pyramid.output_specs, num_classes=90, num_anchors=6)
    >>> scores, boxes = head(pyramid(backbone(images)))
    >>> scores["3"]  # [B, ceil(H / 8), ceil(W / 8), 540]
  """

  _attention: Callable[..., Any]

  def __init__(
    self,
    input_specs: Mapping[str, Sequence[int | None]],
    num_classes: int,
    num_anchors: int,
    num_layers: int = 4,
    num_filters: int = 256,
    spatial: Spatial = "attention",
    kernel_size: int | tuple[int, int] = 7,
    num_heads: int = 8,
    positions: Positions = "relative",
    border: Border = "zero",
    implementation: ImplementationName = "auto",
    *,
    shortcut: bool = False,
    locality_strength: float = 0.0,
    value_stddev: float | None = STDDEV,
    use_batch_norm: bool = True,
    activation: str = "relu",
    use_sync_bn: bool = False,
    norm_momentum: float = 0.99,
    norm_epsilon: float = 1e-3,
    kernel_regularizer: Any = None,
    **kwargs: Any,
  ):
    """Creates the head.

    Args:
      input_specs: {level: shape (B, H, W, C)} of the outputs of the pyramid, its `output_specs`.
      num_classes: number of object classes, without background.
      num_anchors: anchors at each pixel of a level.
      num_layers: spatial operations of a tower before the predictor.
      num_filters: channels of the towers; a multiple of 2 * num_heads for attention with relative
        positions.
      spatial: "attention" or "conv".
      kernel_size: window of the attention, an odd int or (rows, columns).
      num_heads: heads of the attention.
      positions: "relative", "absolute" or "none".
      border: "zero" or "mask", how a neighbor outside the feature map is treated; see
        `LocalSelfAttention2D`.
      implementation: of the attention, "auto" or one of `sasa_tf.ops.available_implementations()`.
      shortcut: whether the input of each attention is added to its output, if it has `num_filters`
        channels. The paper has no such shortcut.
      locality_strength: of the attention; see `LocalSelfAttention2D`. The paper has 0.
      value_stddev: initial standard deviation of the value projections, 0.01 in the paper; None for
        Glorot's, which preserves the variance of the features.
      use_batch_norm: whether batch norm follows each operation of a tower.
      activation: name of the activation.
      use_sync_bn: whether batch norm uses the statistics of all replicas.
      norm_momentum: momentum of the moving averages of batch norm.
      norm_epsilon: epsilon of batch norm.
      kernel_regularizer: of convolutions and projections.
      **kwargs: Keras arguments (`name`, `trainable`).

    Raises:
      TypeError: there is no such argument.
      ValueError: an argument is out of range.
    """
    self._check_kwargs(kwargs)
    levels = sorted_levels(input_specs)
    channels = {tuple(shape)[-1] for shape in input_specs.values()}
    if len(channels) != 1 or None in channels:
      raise ValueError(
        "all levels share the towers, so input_specs must have the same known number of "
        f"channels at each level; received {dict(input_specs)}."
      )
    for name, count in {"num_classes": num_classes, "num_anchors": num_anchors}.items():
      if not isinstance(count, int) or count < 1:
        raise ValueError(f"{name} must be a positive int; received {count!r}.")
    if not isinstance(num_layers, int) or num_layers < 0:
      raise ValueError(f"num_layers must be 0 or a positive int; received {num_layers!r}.")
    keras = self._keras
    layers = keras.layers
    regularizer = keras.regularizers.serialize(keras.regularizers.get(kernel_regularizer))

    # Serialized, so that each layer creates its own initializer and draws different values.
    normal = keras.initializers.serialize(keras.initializers.RandomNormal(stddev=STDDEV))
    kernel = {"kernel_initializer": normal, "kernel_regularizer": regularizer}
    values = {"kernel_regularizer": regularizer}
    if value_stddev is not None:
      initializer = keras.initializers.RandomNormal(stddev=value_stddev)
      values["value_initializer"] = keras.initializers.serialize(initializer)
    window = {
      "kernel_size": kernel_size,
      "num_heads": num_heads,
      "positions": positions,
      "border": border,
      "implementation": implementation,
      "locality_strength": locality_strength,
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

    def attend(layer, x, name):
      outputs = layer(x)
      if not shortcut or spatial != "attention":
        return outputs
      return add_shortcut(layers, x, outputs, strides=1, name=f"{name}_add")

    def predictor(outputs, bias, name):
      """Returns the last layers of a tower."""
      convolution = layers.Conv2D(
        outputs,
        3 if spatial == "conv" else 1,
        padding="same",
        data_format="channels_last",
        bias_initializer=keras.initializers.Constant(bias),
        name=name,
        **kernel,
      )
      if spatial == "conv":
        return None, convolution
      # Without an activation in between, because the pair replaces one convolution.
      return operation(num_filters, name=f"{name}_spatial"), convolution

    def tower(name, outputs, bias, inputs):
      shared = [operation(num_filters, name=f"{name}_{i}") for i in range(1, num_layers + 1)]
      last, convolution = predictor(outputs, bias, f"{name}_predictor")
      predictions = {}
      for level, x in inputs.items():
        for layer in shared:
          step = f"{layer.name}_level_{level}"
          x = normalize(attend(layer, x, step), step)
        if last is not None:
          x = attend(last, x, f"{last.name}_level_{level}")
        predictions[level] = convolution(x)
      return predictions

    inputs = level_inputs(keras, input_specs)
    bias = -math.log((1 - PRIOR) / PRIOR)
    scores = tower("classes", num_anchors * num_classes, bias, inputs)
    boxes = tower("boxes", num_anchors * BOX_PARAMETERS, 0.0, inputs)
    super().__init__(inputs=inputs, outputs=(scores, boxes), **kwargs)

    self._save_init_args(
      input_specs={str(level): tuple(input_specs[str(level)]) for level in levels},
      num_classes=num_classes,
      num_anchors=num_anchors,
      num_layers=num_layers,
      num_filters=num_filters,
      spatial=spatial,
      **window,
      shortcut=shortcut,
      value_stddev=value_stddev,
      use_batch_norm=use_batch_norm,
      activation=activation,
      use_sync_bn=use_sync_bn,
      norm_momentum=norm_momentum,
      norm_epsilon=norm_epsilon,
      kernel_regularizer=regularizer,
    )
