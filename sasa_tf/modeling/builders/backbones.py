"""Registers the backbone type `sasa_resnet` with Model Garden."""

from __future__ import annotations

from typing import Any

import tf_keras
from official.modeling import hyperparams
from official.vision.modeling.backbones import factory

from sasa_tf.modeling.builders.build_errors import MODEL, section_errors
from sasa_tf.modeling.builders.data_format import require_channels_last
from sasa_tf.modeling.builders.norm_arguments import norm_arguments
from sasa_tf.tf_keras import SASAResNet


@factory.register_backbone_builder("sasa_resnet")
def build_sasa_resnet(
  input_specs: tf_keras.layers.InputSpec,
  backbone_config: hyperparams.OneOfConfig,
  norm_activation_config: hyperparams.Config,
  l2_regularizer: tf_keras.regularizers.Regularizer | None = None,
) -> tf_keras.Model:
  """Builds the backbone of type `sasa_resnet` for Model Garden.

  Args:
    input_specs: spec of the images, [B, H, W, C].
    backbone_config: `sasa_tf.configs.backbones.Backbone` or another one-of config with the field
      `sasa_resnet`.
    norm_activation_config: Model Garden's `NormActivation`.
    l2_regularizer: regularizer of convolutions and projections.

  Returns:
    A model with the outputs "2" to "5" and the attribute `output_specs`.

  Raises:
    UserError: tf_keras's image_data_format is channels_first.
    ConfigError: the model cannot be built. The message names the keys of the configuration.
  """
  require_channels_last()
  config: Any = backbone_config.get()
  shape: Any = input_specs.shape
  with section_errors(f"{MODEL}.backbone.{backbone_config.type}", config.as_dict()):
    return SASAResNet(
      **sasa_resnet_arguments(backbone_config, norm_activation_config),
      input_shape=tuple(shape[1:]),
      kernel_regularizer=l2_regularizer,
    )


def sasa_resnet_arguments(
  backbone_config: hyperparams.OneOfConfig, norm_activation_config: hyperparams.Config
) -> dict[str, Any]:
  """Returns the arguments of `SASAResNet` that a configuration of type `sasa_resnet` sets."""
  config: Any = backbone_config.get()
  return {**config.as_dict(), **norm_arguments(norm_activation_config)}
