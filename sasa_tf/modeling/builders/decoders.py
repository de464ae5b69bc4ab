"""Registers the decoder type `sasa_fpn` with Model Garden."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tensorflow as tf
import tf_keras
from official.modeling import hyperparams
from official.vision.modeling.decoders import factory

from sasa_tf.modeling.builders.build_errors import MODEL, section_errors
from sasa_tf.modeling.builders.data_format import require_channels_last
from sasa_tf.modeling.builders.norm_arguments import norm_arguments
from sasa_tf.tf_keras import SASAFPN


@factory.register_decoder_builder("sasa_fpn")
def build_sasa_fpn(
  input_specs: Mapping[str, tf.TensorShape],
  model_config: hyperparams.Config,
  l2_regularizer: tf_keras.regularizers.Regularizer | None = None,
) -> tf_keras.Model:
  """Builds the decoder of type `sasa_fpn` for Model Garden.

  Args:
    input_specs: {level: shape [B, H, W, C]} of the outputs of the backbone.
    model_config: model config with the fields `decoder`, `min_level`, `max_level` and
      `norm_activation`. The decoder is `sasa_tf.configs.decoders.Decoder` or another one-of config
      with the field `sasa_fpn`.
    l2_regularizer: regularizer of convolutions and projections.

  Returns:
    A model with the outputs from `min_level` to `max_level` and the attribute `output_specs`.

  Raises:
    UserError: tf_keras's image_data_format is channels_first.
    ConfigError: the model cannot be built. The message names the keys of the configuration.
  """
  require_channels_last()
  config = model_config.decoder.get().as_dict()
  with section_errors(f"{MODEL}.decoder.{model_config.decoder.type}", config):
    return SASAFPN(
      input_specs, **sasa_fpn_arguments(model_config), kernel_regularizer=l2_regularizer
    )


def sasa_fpn_arguments(model_config: Any) -> dict[str, Any]:
  """Returns the arguments of `SASAFPN` that the configuration of a detector sets."""
  return {
    **model_config.decoder.get().as_dict(),
    "min_level": model_config.min_level,
    "max_level": model_config.max_level,
    **norm_arguments(model_config.norm_activation),
  }
