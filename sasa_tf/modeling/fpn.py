"""Feature pyramid with 3x3 convolutions or local self-attention (paper App. A.3)."""

from __future__ import annotations

import functools
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


class SASAFPNBase(SerializableModel):
  """Feature pyramid network (Lin et al. 2017) with RetinaNet's coarser levels.

  With spatial="conv" it computes the same function as Model Garden's `FPN`. With "attention" every
  3x3 convolution becomes local self-attention of the same width, followed by 2x2 average pooling if
  the convolution has a stride (paper App. A.3). The pointwise lateral convolutions stay.

  Input: {level: [B, ceil(H / 2^level), ceil(W / 2^level), C of the level]} from a backbone, with
  all levels of `input_specs`; levels below `min_level` are ignored. H and W of the image may have
  any value.

  Output: {level: [B, ceil(H / 2^level), ceil(W / 2^level), num_filters]} for the levels from
  `min_level` to `max_level`.

  Attributes:
    output_specs: {level: shape of the output}.

  Examples:
    >>> backbone = SASAResNet(50)
    >>> pyramid = SASAFPN(backbone.output_specs)
    >>> features = pyramid(backbone(images))["3"]  # [B, ceil(H / 8), ceil(W / 8), 256]
  """

  _attention: Callable[..., Any]
  _upsample_add: Callable[..., Any]

  def __init__(
    self,
    input_specs: Mapping[str, Sequence[int | None]],
    min_level: int = 3,
    max_level: int = 7,
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
    use_batch_norm: bool = True,
    activation: str = "relu",
    use_sync_bn: bool = False,
    norm_momentum: float = 0.99,
    norm_epsilon: float = 1e-3,
    kernel_initializer: Any = "VarianceScaling",
    kernel_regularizer: Any = None,
    **kwargs: Any,
  ):
    """Creates the pyramid.

    Args:
      input_specs: {level: shape (B, H, W, C)} of the outputs of the backbone, its `output_specs`.
      min_level: finest output level. Level n has the resolution of the image divided by 2^n.
      max_level: coarsest output level. Each level beyond those of the backbone is computed from
        the previous one, at half its resolution.
      num_filters: channels of every level; a multiple of 2 * num_heads for attention with relative
        positions.
      spatial: "attention" or "conv", the operation that is applied to each level.
      kernel_size: window of the attention, an odd int or (rows, columns).
      num_heads: heads of the attention.
      positions: "relative", "absolute" or "none".
      border: "zero" or "mask", how a neighbor outside the feature map is treated; see
        `LocalSelfAttention2D`.
      implementation: of the attention, "auto" or one of `sasa_tf.ops.available_implementations()`.
      shortcut: whether the input of each attention is added to its output, average-pooled where
        the resolution is halved. The paper has no such shortcut.
      locality_strength: of the attention; see `LocalSelfAttention2D`. The paper has 0.
      use_batch_norm: whether every level ends with batch norm.
      activation: name of the activation between the levels beyond those of the backbone.
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
    levels = sorted_levels(input_specs)
    if min_level not in levels or max_level < min_level:
      raise ValueError(
        "min_level must be a level of the backbone, and max_level must not be finer; received "
        f"min_level={min_level!r}, max_level={max_level!r} and the levels {levels}."
      )
    keras = self._keras
    layers = keras.layers
    initializer = keras.initializers.serialize(keras.initializers.get(kernel_initializer))
    regularizer = keras.regularizers.serialize(keras.regularizers.get(kernel_regularizer))
    # Serialized, so that each layer creates its own initializer and draws different values.
    kernel = {"kernel_initializer": initializer, "kernel_regularizer": regularizer}
    window = {
      "kernel_size": kernel_size,
      "num_heads": num_heads,
      "positions": positions,
      "border": border,
      "implementation": implementation,
      "locality_strength": locality_strength,
    }
    operation = spatial_operation(spatial, keras, self._attention, window, kernel)

    def apply(x, name, strides=1):
      outputs = operation(num_filters, strides=strides, name=name)(x)
      if not shortcut or spatial != "attention":
        return outputs
      return add_shortcut(layers, x, outputs, strides=strides, name=f"{name}_add")

    inputs = level_inputs(keras, input_specs)
    top = min(levels[-1], max_level)
    merged = range(min_level, top + 1)
    for level in set(levels).difference(merged):
      # Keras before 3.13 (3.12 is the last for Python 3.10) rejects an input that no layer uses.
      layers.Activation("linear", name=f"unused_{level}")(inputs[str(level)])
    lateral = functools.partial(
      layers.Conv2D, num_filters, 1, data_format="channels_last", **kernel
    )
    features = {level: lateral(name=f"lateral_{level}")(inputs[str(level)]) for level in merged}
    for level in reversed(merged[:-1]):
      merge = self._upsample_add(name=f"top_down_{level}")
      features[level] = merge([features[level + 1], features[level]])
    for level in merged:
      features[level] = apply(features[level], f"post_hoc_{level}")
    for level in range(top + 1, max_level + 1):
      x = features[level - 1]
      if level > top + 1:
        x = layers.Activation(activation, name=f"activation_{level - 1}")(x)
      features[level] = apply(x, f"coarser_{level}", strides=2)
    if use_batch_norm:
      for level, x in features.items():
        norm = layers.BatchNormalization(
          momentum=norm_momentum,
          epsilon=norm_epsilon,
          synchronized=use_sync_bn,
          name=f"norm_{level}",
        )
        features[level] = norm(x)
    outputs = {str(level): x for level, x in features.items()}
    super().__init__(inputs=inputs, outputs=outputs, **kwargs)

    self.output_specs = {level: x.shape for level, x in outputs.items()}
    self._save_init_args(
      input_specs={level: tuple(shape) for level, shape in input_specs.items()},
      min_level=min_level,
      max_level=max_level,
      num_filters=num_filters,
      spatial=spatial,
      **window,
      shortcut=shortcut,
      use_batch_norm=use_batch_norm,
      activation=activation,
      use_sync_bn=use_sync_bn,
      norm_momentum=norm_momentum,
      norm_epsilon=norm_epsilon,
      **kernel,
    )
