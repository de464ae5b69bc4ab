"""Feature pyramid whose 3x3 convolutions can be exchanged for attention (paper App. A.3)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sasa_tf.modeling.levels import level_inputs, sorted_levels
from sasa_tf.modeling.serializable import ConfiguredModel
from sasa_tf.modeling.spatial_operations import spatial_operation


class SASAFPNBase(ConfiguredModel):
  """Feature pyramid network (Lin et al. 2017) with RetinaNet's coarser levels.

  With spatial="conv" it computes what Model Garden's `FPN` does. With "attention" every 3x3
  convolution becomes local self-attention of the same width, followed by 2x2 average pooling where
  the convolution has a stride (paper App. A.3). The pointwise lateral convolutions stay.

  Input: {level: [B, ceil(H / 2^level), ceil(W / 2^level), C of the level]} of a backbone, all
  levels of `input_specs`, of which those below `min_level` are ignored.
  Output: {level: [B, ceil(H / 2^level), ceil(W / 2^level), num_filters]} from `min_level` to
  `max_level`. `output_specs` holds their shapes. The image's size H, W need not be a multiple of
  anything.

  Example:
    >>> backbone = SASAResNet(50)
    >>> pyramid = SASAFPN(backbone.output_specs)
    >>> features = pyramid(backbone(images))["3"]  # [B, ceil(H / 8), ceil(W / 8), 256]
  """

  def __init__(
    self,
    input_specs: Mapping[str, Sequence[int | None]],
    min_level: int = 3,
    max_level: int = 7,
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
    kernel_initializer: Any = "VarianceScaling",
    kernel_regularizer: Any = None,
    **kwargs: Any,
  ):
    """Builds the pyramid.

    Args:
      input_specs: {level: shape (B, H, W, C)} of the backbone's outputs, its `output_specs`.
      min_level: finest level of the outputs; level n has the image's resolution by 2^n.
      max_level: coarsest level of the outputs. Those beyond the backbone's are made of the one
        before, at half of its resolution.
      num_filters: channels of every level; for attention a multiple of 2 * num_heads.
      spatial: "attention" or "conv", what the backbone's levels and the coarser ones go through.
      kernel_size: window of attention, odd int or (rows, columns).
      num_heads: heads of attention.
      positions: "relative", "absolute" or "none".
      border: "zero" or "mask", what a neighbour outside of the map is.
      implementation: of the attention, "auto" or one of `sasa_tf.ops.available_implementations()`.
      use_batch_norm: whether batch norm ends every level.
      activation: name of the non-linearity between the levels beyond the backbone's.
      use_sync_bn: whether batch norm sees the batch of all replicas.
      norm_momentum: of batch norm's moving averages.
      norm_epsilon: of batch norm.
      kernel_initializer: of convolutions and projections.
      kernel_regularizer: of convolutions and projections.
      **kwargs: Keras's own (`name`, `trainable`).

    Raises:
      ValueError: an argument out of range; the message says which, and how to mend it.
    """
    levels = sorted_levels(input_specs)
    if min_level not in levels or max_level < min_level:
      raise ValueError(
        "min_level must be among the backbone's levels, and max_level no finer; received "
        f"min_level={min_level!r}, max_level={max_level!r} and the levels {levels}."
      )
    keras = self._keras
    layers = keras.layers
    initializer = keras.initializers.serialize(keras.initializers.get(kernel_initializer))
    regularizer = keras.regularizers.serialize(keras.regularizers.get(kernel_regularizer))
    # Serialised, so that each layer makes an initializer of its own and draws other values.
    kernel = {"kernel_initializer": initializer, "kernel_regularizer": regularizer}
    window = {
      "kernel_size": kernel_size,
      "num_heads": num_heads,
      "positions": positions,
      "border": border,
      "implementation": implementation,
    }
    operation = spatial_operation(spatial, keras, self._attention, window, kernel)

    inputs = level_inputs(keras, input_specs)
    top = min(levels[-1], max_level)
    own = range(min_level, top + 1)
    for level in set(levels).difference(own):
      # Keras before 3.13, the last for Python 3.10, refuses an input that nothing was called on.
      layers.Activation("linear", name=f"unused_{level}")(inputs[str(level)])
    features = {
      level: layers.Conv2D(num_filters, 1, name=f"lateral_{level}", **kernel)(inputs[str(level)])
      for level in own
    }
    for level in reversed(own[:-1]):
      merge = self._upsample_add(name=f"top_down_{level}")
      features[level] = merge([features[level + 1], features[level]])
    for level in own:
      features[level] = operation(num_filters, name=f"post_hoc_{level}")(features[level])
    for level in range(top + 1, max_level + 1):
      x = features[level - 1]
      if level > top + 1:
        x = layers.Activation(activation, name=f"activation_{level - 1}")(x)
      features[level] = operation(num_filters, strides=2, name=f"coarser_{level}")(x)
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
    self._remember(
      input_specs={level: tuple(shape) for level, shape in input_specs.items()},
      min_level=min_level,
      max_level=max_level,
      num_filters=num_filters,
      spatial=spatial,
      **window,
      use_batch_norm=use_batch_norm,
      activation=activation,
      use_sync_bn=use_sync_bn,
      norm_momentum=norm_momentum,
      norm_epsilon=norm_epsilon,
      **kernel,
    )
