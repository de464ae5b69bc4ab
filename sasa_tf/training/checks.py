"""Checks of the data, the model directory and the configuration before a run starts."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import tensorflow as tf
import yaml
from official.core import config_definitions
from official.vision.configs.retinanet import DataConfig as DetectionData

from sasa_tf.data.tfrecord.output_directory import COMMIT_FILE, LABELS_FILE
from sasa_tf.errors import UserError
from sasa_tf.training.resilience import checkpoints

# Model Garden's file in model_dir with the configuration of the run.
PARAMS_FILE = "params.yaml"

# Subcommands of make_tfrecords for each task.
_CLASSIFICATION_CONVERTERS = "digits for scikit-learn's digits, image_folder for a folder of images"
_DETECTION_CONVERTERS = (
  "scenes for synthetic scenes, voc for XML files like Pascal VOC's, coco for an instances file "
  "like COCO's"
)


def check_data(name: str, data: config_definitions.DataConfig) -> None:
  """Checks that the data is configured exactly once, exists and is not empty.

  Args:
    name: name of the field, "task.train_data" or "task.validation_data".
    data: value of the field.

  Raises:
    UserError: a check fails.
  """
  if bool(data.input_path) == bool(data.tfds_name):
    raise UserError(
      f"{name} needs exactly one of input_path (TFRecord files) and tfds_name (TensorFlow "
      f"Datasets); received input_path={data.input_path!r} and tfds_name={data.tfds_name!r}. Set "
      "the other to ''."
    )
  if data.input_path and data.file_type == "tfrecord":
    is_detection = isinstance(data, DetectionData)
    converters = _DETECTION_CONVERTERS if is_detection else _CLASSIFICATION_CONVERTERS
    _check_tfrecords(f"{name}.input_path", data.input_path, converters)


def _check_tfrecords(name: str, input_path: Any, converters: str) -> None:
  patterns = [input_path] if isinstance(input_path, str) else input_path
  if not isinstance(patterns, (list, tuple)):
    return  # a dictionary of weighted sources, which Model Garden checks
  patterns = [p.strip() for part in patterns for p in part.split(",") if p.strip()]
  files = []
  for pattern in patterns:
    matched = tf.io.gfile.glob(pattern)
    if not matched:
      raise UserError(
        f"{name}={pattern}: no file matches (looked from {os.getcwd()}). Write TFRecords with "
        f"`python -m sasa_tf.bin.make_tfrecords` ({converters}), or set the path."
      )
    files.extend(matched)
  for directory in dict.fromkeys(map(os.path.dirname, files)):
    if tf.io.gfile.exists(os.path.join(directory, COMMIT_FILE)):
      raise UserError(
        f"{name}={input_path}: a conversion to {directory} is replacing the files, or was killed. "
        "Wait until it ends, or run `python -m sasa_tf.bin.make_tfrecords` again, which completes "
        "it."
      )
  if not any(tf.io.gfile.stat(file).length for file in files):
    raise UserError(f"{name}={input_path}: all {len(files)} files are empty. Write them again.")


def check_model_dir(
  model_dir: str,
  params: config_definitions.ExperimentConfig,
  *,
  train: bool,
  write: bool | None = None,
) -> None:
  """Checks that the directory is writable and that its checkpoint is of the same model.

  Args:
    model_dir: directory of the run.
    params: configuration of the run.
    train: whether the run trains. An evaluation needs a checkpoint instead.
    write: whether this process writes to the directory; `train` by default.

  Raises:
    UserError: a check fails.
  """
  checkpoint = checkpoints.latest_valid(model_dir)
  if train if write is None else write:
    _check_writable(model_dir)
  if not train and checkpoint is None:
    raise UserError(
      f"--model_dir={model_dir} holds no checkpoint to evaluate. Train first, or use the "
      "directory of a training."
    )
  if checkpoint is None:
    return
  saved = os.path.join(model_dir, PARAMS_FILE)
  if not tf.io.gfile.exists(saved):
    raise UserError(
      f"--model_dir={model_dir} holds the checkpoint {checkpoint}, but no params.yaml with the "
      "configuration of its model. Use another directory, or restore params.yaml."
    )
  saved_model = _load_params(saved)["task"]["model"]
  changes = list(_differences(saved_model, _without_tuples(params.task.model.as_dict())))
  if changes:
    raise UserError(
      f"--model_dir={model_dir} holds a checkpoint of another model ({checkpoint}). It differs "
      f"in {'; '.join(changes[:5])}. Use an empty directory, or the configuration of that run "
      f"({saved})."
    )


def check_precision(params: config_definitions.ExperimentConfig) -> None:
  """Raises a `UserError` if Model Garden cannot train with the configured precision."""
  if params.runtime.mixed_precision_dtype == "float16" and params.trainer.optimizer_config.ema:
    raise UserError(
      "runtime.mixed_precision_dtype=float16 together with trainer.optimizer_config.ema fails in "
      "Model Garden: its loss scaling does not support the averaging optimizer. Use bfloat16, or "
      "set trainer.optimizer_config.ema to null."
    )


def check_init_checkpoint(task: config_definitions.TaskConfig) -> None:
  """Checks that `init_checkpoint` exists, is valid and has the same backbone.

  The backbones are compared if params.yaml of the training is in the directory of the checkpoint or
  in its parent.

  Args:
    task: task configuration; `init_checkpoint` may be None.

  Raises:
    UserError: a check fails.
  """
  path = task.init_checkpoint
  if not path:
    return
  if not tf.io.gfile.isdir(path) and not tf.io.gfile.exists(f"{path}.index"):
    raise UserError(
      f"task.init_checkpoint={path}: no such checkpoint. Set it to the directory of a training, "
      "or to a checkpoint in it without its suffix, for example runs/imagenet/best_ckpt."
    )
  last = tf.train.latest_checkpoint(path) if tf.io.gfile.isdir(path) else path
  problem = checkpoints.find_corruption(last) if last else None
  if problem:
    raise UserError(f"task.init_checkpoint={path}: {last} is corrupt: {problem}. Use another one.")
  directory = path if tf.io.gfile.isdir(path) else os.path.dirname(path)
  for folder in (directory, os.path.dirname(directory.rstrip("/"))):
    saved = os.path.join(folder, PARAMS_FILE)
    if tf.io.gfile.exists(saved):
      saved_backbone = _backbone(_load_params(saved)["task"]["model"])
      backbone = _backbone(_without_tuples(task.model.as_dict()))
      changes = list(_differences(saved_backbone, backbone, "task.model.backbone"))
      if changes:
        raise UserError(
          f"task.init_checkpoint={path} is of another backbone ({saved}). It differs in "
          f"{'; '.join(changes[:5])}. Configure the same backbone, or use another checkpoint."
        )
      return


def _backbone(model: Mapping[str, Any]) -> dict[str, Any]:
  """Returns the type and the settings of the backbone of a model configuration."""
  kind = model["backbone"]["type"]
  settings = dict(model["backbone"][kind])
  settings.pop("implementation", None)  # does not affect the weights
  return {"type": kind, kind: settings}


def _load_params(path: str) -> dict[str, Any]:
  with tf.io.gfile.GFile(path) as file:
    # Model Garden writes tuples with a Python tag, which the safe loader rejects.
    return yaml.safe_load(file.read().replace("!!python/tuple", ""))


def _check_writable(model_dir: str) -> None:
  try:
    tf.io.gfile.makedirs(model_dir)
    probe = os.path.join(model_dir, f".write_test.{os.getpid()}")
    with tf.io.gfile.GFile(probe, "w") as file:
      file.write("")
    tf.io.gfile.remove(probe)
  except (tf.errors.OpError, OSError) as error:
    raise UserError(
      f"--model_dir={model_dir} cannot be written: {getattr(error, 'message', error)}. Choose a "
      "writable directory."
    ) from error


def _without_tuples(value: Any) -> Any:
  """Returns nested mappings and sequences as dicts and lists, as params.yaml has them."""
  if isinstance(value, Mapping):
    return {key: _without_tuples(v) for key, v in value.items()}
  return [_without_tuples(v) for v in value] if isinstance(value, (list, tuple)) else value


def _differences(saved: Any, current: Any, path: str = "task.model") -> Iterator[str]:
  """Yields a description of every leaf that differs."""
  if isinstance(saved, Mapping) and isinstance(current, Mapping):
    for key in sorted({*saved, *current}):
      yield from _differences(saved.get(key), current.get(key), f"{path}.{key}")
  elif saved != current:
    yield f"{path}: {saved!r} in the checkpoint, {current!r} in this run"


def find_label_file(input_path: Any) -> pathlib.Path | None:
  """Returns the label file that `make_tfrecords` wrote next to these TFRecords, if any."""
  if not isinstance(input_path, str) or not input_path:
    return None
  labels = pathlib.Path(input_path.split(",")[0].strip()).parent / LABELS_FILE
  return labels if labels.is_file() else None
