"""Keras 3 models with the weights of models that Model Garden trained with tf_keras."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from official.core import config_definitions
from official.vision.modeling import retinanet_model

from sasa_tf.configs.retinanet import RetinaNetTask
from sasa_tf.errors import UserError
from sasa_tf.keras import SASAFPN, RetinaNetHead, SASAResNet, SASAResNetClassifier
from sasa_tf.modeling.builders.backbones import sasa_resnet_arguments
from sasa_tf.modeling.builders.decoders import sasa_fpn_arguments
from sasa_tf.modeling.builders.retinanet import head_arguments
from sasa_tf.modeling.weights import assign_weights, copy_weights
from sasa_tf.serving.named_variables import named_variables


def build_keras_model(
  params: config_definitions.ExperimentConfig, trained: Any, image_size: tuple[int, int]
) -> Any:
  """Returns a Keras 3 model that computes the same function as a trained tf_keras model.

  Args:
    params: experiment configuration of the training.
    trained: Model Garden's `ClassificationModel` or `RetinaNetModel` with the weights.
    image_size: (H, W) of the model's input.

  Returns:
    A `SASAResNetClassifier`, which returns logits; or a functional model of `SASAResNet`, `SASAFPN`
    and `RetinaNetHead`, which returns ({level: class logits}, {level: boxes}). Both take normalized
    images [B, H, W, 3], see `SASAResNetClassifier.preprocess`.

  Raises:
    UserError: the configuration has parts that are not of this library.
  """
  is_detector = isinstance(params.task, RetinaNetTask)
  check_parts(params.task.model, is_detector, "keras")
  if is_detector:
    return _detector(params.task.model, trained, image_size)
  return _classifier(params.task.model, trained, image_size)


def raw_outputs(trained: Any, images: tf.Tensor) -> Any:
  """Returns the outputs of a trained model that `build_keras_model`'s model returns too."""
  if not isinstance(trained, retinanet_model.RetinaNetModel):
    return trained(images, training=False)
  return trained.head.head(trained.decoder(trained.backbone(images)))


def _classifier(config: Any, trained: Any, image_size: tuple[int, int]) -> Any:
  model = SASAResNetClassifier(
    **_portable(sasa_resnet_arguments(config.backbone, config.norm_activation)),
    num_classes=config.num_classes,
    input_shape=(*image_size, 3),
    dropout_rate=config.dropout_rate,
  )
  values = {name: np.asarray(value) for name, value in named_variables(trained).items()}
  assign_weights(model, values)
  return model


def _detector(config: Any, trained: Any, image_size: tuple[int, int]) -> Any:
  backbone = SASAResNet(
    **_portable(sasa_resnet_arguments(config.backbone, config.norm_activation)),
    input_shape=(*image_size, 3),
    name="backbone",
  )
  decoder = SASAFPN(backbone.output_specs, **_portable(sasa_fpn_arguments(config)), name="decoder")
  head = RetinaNetHead(decoder.output_specs, **_portable(head_arguments(config)), name="head")
  images = keras.Input((*image_size, 3), name="images")
  model = keras.Model(images, head(decoder(backbone(images))), name="detector")
  copy_weights(trained.backbone, backbone)
  copy_weights(trained.decoder, decoder)
  copy_weights(trained.head.head, head)
  return model


def _portable(arguments: dict[str, Any]) -> dict[str, Any]:
  """Returns the arguments with the implementation that works wherever the model is loaded."""
  return {**arguments, "implementation": "auto"}


def check_parts(config: Any, is_detector: bool, format_name: str) -> None:
  """Checks that a model consists of the classes of this library.

  Args:
    config: `task.model` of the experiment.
    is_detector: whether it is a detector.
    format_name: value of --format, for the message.

  Raises:
    UserError: it has other parts.
  """
  unsupported = list(_unsupported(config, is_detector))
  if unsupported:
    raise UserError(
      f"--format={format_name} writes models that consist of the classes of this library, which "
      f"does not hold for {' and '.join(unsupported)}. Export another format, for example "
      "saved_model."
    )


def _unsupported(config: Any, is_detector: bool) -> Iterator[str]:
  """Yields the settings that the classes of sasa_tf.keras do not have."""
  if config.backbone.type != "sasa_resnet":
    yield f"task.model.backbone.type={config.backbone.type!r} (expected 'sasa_resnet')"
  if is_detector:
    if config.decoder.type != "sasa_fpn":
      yield f"task.model.decoder.type={config.decoder.type!r} (expected 'sasa_fpn')"
  elif config.add_head_batch_norm:
    yield "task.model.add_head_batch_norm=True (expected False)"
