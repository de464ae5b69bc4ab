"""Reads the weights of a convolutional ResNet from the files of Keras and of Model Garden."""

from __future__ import annotations

import json
import os
import pathlib
import zipfile
from typing import Any

import h5py
import keras
import tensorflow as tf

from sasa_tf import extras
from sasa_tf.compat import checkpoint_objects
from sasa_tf.errors import UserError
from sasa_tf.pretrained.resnet_weights import (
  ResNetWeights,
  from_keras_application,
  from_model_garden,
)

# What Keras and h5py raise for files of other content.
_INVALID_FILE_ERRORS = (
  OSError,
  ValueError,
  TypeError,
  KeyError,
  IndexError,
  AttributeError,
  ImportError,
)


def read_keras_application(
  path: str | os.PathLike, *, num_classes: int = 1000, caffe_inputs: bool = True
) -> ResNetWeights:
  """Returns the weights of a `keras.applications.ResNet50` that was saved by Keras.

  Args:
    path: a model (.keras), or weights (.h5 or .weights.h5) with or without the classifier.
    num_classes: of a classifier in a file of weights.
    caffe_inputs: see `from_keras_application`.

  Raises:
    UserError: the file does not exist, cannot be read, or holds another model.
  """
  file = pathlib.Path(path)
  if not file.is_file():
    raise UserError(f"{file}: no such file. Expected a .keras, .h5 or .weights.h5 file of Keras.")
  if file.suffix == ".keras":
    try:
      model = keras.saving.load_model(file, compile=False)
    except _INVALID_FILE_ERRORS as error:
      raise UserError(f"{file} cannot be read as a model of Keras 3: {_first(error)}.") from error
    try:
      return from_keras_application(model, caffe_inputs=caffe_inputs)
    except UserError as error:
      raise UserError(f"{file}: {error}") from error
  try:
    include_top = _has_classifier(file)
    model = keras.applications.ResNet50(
      include_top=include_top,
      weights=None,
      classes=num_classes,
      input_shape=None if include_top else (None, None, 3),
    )
    model.load_weights(file)
  except _INVALID_FILE_ERRORS as error:
    raise UserError(
      f"{file} does not hold the weights of keras.applications.ResNet50 with {num_classes} classes "
      f"or without its classifier: {_first(error)}. Use the file of a ResNet50, and set the number "
      "of classes that it was trained with."
    ) from error
  return from_keras_application(model, caffe_inputs=caffe_inputs)


def _has_classifier(file: pathlib.Path) -> bool:
  """Returns whether the file has a matrix, which in ResNet50 is the kernel of the classifier."""
  dimensions = []
  with h5py.File(file) as content:
    content.visititems(lambda _, item: dimensions.append(len(getattr(item, "shape", ()))))
  return 2 in dimensions


def read_model_garden(
  path: str, *, model_id: int = 50, norm_epsilon: float = 1e-5
) -> ResNetWeights:
  """Returns the backbone of a checkpoint that Model Garden trained with the backbone `resnet`.

  Args:
    path: a checkpoint without suffix, or a directory, whose latest checkpoint is read.
    model_id: of the backbone; of Model Garden's depths, SASAResNet has 50.
    norm_epsilon: epsilon of the batch norms, `task.model.norm_activation.norm_epsilon`.

  Raises:
    UserError: there is no checkpoint, it cannot be read, or it holds another backbone.
    MissingExtraError: Model Garden is not installed.
  """
  extras.require("a checkpoint of Model Garden", "official", "tf_keras")
  import tf_keras
  from official.vision.modeling.backbones import resnet

  checkpoint = _find_checkpoint(path)
  if model_id not in resnet.RESNET_SPECS:
    raise UserError(
      f"Model Garden has no ResNet with model_id={model_id}; it has {[*resnet.RESNET_SPECS]}."
    )
  specs = tf_keras.layers.InputSpec(shape=[None, None, None, 3])
  backbone = resnet.ResNet(model_id, input_specs=specs)
  try:
    found = checkpoint_objects.mismatches(checkpoint, {"backbone": backbone})
  except (ValueError, tf.errors.OpError) as error:
    raise UserError(f"{checkpoint} cannot be read: {_first(error)}.") from error
  if found:
    raise UserError(
      f"{checkpoint} does not hold Model Garden's ResNet-{model_id} as its backbone: "
      f"{checkpoint_objects.describe(found)}. Use a checkpoint "
      "with a backbone of type resnet, of this depth and with stem_type v0."
    )
  tf.train.Checkpoint(backbone=backbone).read(checkpoint).expect_partial()
  return from_model_garden(backbone, norm_epsilon=norm_epsilon)


def read_model(path: str | os.PathLike) -> Any:
  """Returns a `SASAResNet` or `SASAResNetClassifier` that either Keras version saved.

  Args:
    path: a .keras file.

  Raises:
    UserError: the file does not exist, cannot be read, or holds another model.
    MissingExtraError: tf_keras saved it, and is not installed.
  """
  file = pathlib.Path(path)
  if not file.is_file():
    raise UserError(f"{file}: no such file. Expected a .keras file.")
  try:
    with zipfile.ZipFile(file) as archive:
      version = str(json.loads(archive.read("metadata.json"))["keras_version"])
  except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
    raise UserError(
      f"{file} is not a .keras file ({_first(error)}). Save the model with model.save."
    ) from error
  if version.startswith("2."):
    extras.require("a model of tf_keras", "tf_keras")
    import tf_keras

    from sasa_tf import tf_keras as binding

    load = tf_keras.saving.load_model
  else:
    from sasa_tf import keras as binding

    load = keras.saving.load_model
  try:
    model = load(file, compile=False)
  except _INVALID_FILE_ERRORS as error:
    raise UserError(
      f"{file} cannot be read by Keras {version.partition('.')[0]}: {_first(error)}."
    ) from error
  if not isinstance(model, (binding.SASAResNet, binding.SASAResNetClassifier)):
    raise UserError(
      f"{file} holds the model {type(model).__name__}; expected SASAResNet or SASAResNetClassifier."
    )
  return model


def _find_checkpoint(path: str) -> str:
  if tf.io.gfile.isdir(path):
    latest = tf.train.latest_checkpoint(path)
    if latest:
      return latest
  elif tf.io.gfile.exists(f"{path}.index"):
    return path
  raise UserError(
    f"{path}: no such checkpoint. Expected a directory with a checkpoint, or the path of a "
    "checkpoint without .index."
  )


def _first(error: BaseException) -> str:
  lines = str(error).strip().splitlines() or [type(error).__name__]
  return lines[0].rstrip(".:")
