"""What can be known to fail before the first step is built: data and model directory."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import tensorflow as tf
import yaml
from official.core import config_definitions
from official.vision.configs.retinanet import DataConfig as DetectionData

from sasa_tf.data.tfrecord.output_directory import LABELS_FILE
from sasa_tf.errors import UserError
from sasa_tf.training.resilience import checkpoints

# Model Garden's, in a model_dir.
PARAMS_FILE = "params.yaml"

# What makes TFRecords for classification and for detection.
_OF_CLASSES = "digits for scikit-learn's digits, image_folder for a folder of images"
_OF_BOXES = (
  "scenes for drawn ones, voc for Pascal VOC's XML files, coco for an instances file like COCO's"
)


def check_data(name: str, data: config_definitions.DataConfig) -> None:
  """Raises a `UserError` unless the configured data is named once, exists and is not empty.

  Args:
    name: of the field, "task.train_data" or "task.validation_data".
    data: its value.
  """
  if bool(data.input_path) == bool(data.tfds_name):
    raise UserError(
      f"{name} needs exactly one of input_path (TFRecord files) and tfds_name (TensorFlow "
      f"Datasets); received input_path={data.input_path!r} and tfds_name={data.tfds_name!r}. Set "
      "the other to ''."
    )
  if data.input_path and data.file_type == "tfrecord":
    converters = _OF_BOXES if isinstance(data, DetectionData) else _OF_CLASSES
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
  if not any(tf.io.gfile.stat(file).length for file in files):
    raise UserError(f"{name}={input_path}: all {len(files)} files are empty. Write them again.")


def check_model_dir(
  model_dir: str,
  params: config_definitions.ExperimentConfig,
  *,
  train: bool,
  write: bool | None = None,
) -> None:
  """Raises a `UserError` unless the directory can be written and continues the same model.

  Args:
    model_dir: of the run.
    params: its configuration.
    train: whether the run will train; an evaluation needs a checkpoint there instead.
    write: whether this process will write there, by default where it trains.
  """
  checkpoint = checkpoints.latest_valid(model_dir)
  if train if write is None else write:
    _check_writable(model_dir)
  if not train and checkpoint is None:
    raise UserError(
      f"--model_dir={model_dir} holds no checkpoint to evaluate. Train first, or name the "
      "directory of a training."
    )
  if checkpoint is None:
    return
  saved = os.path.join(model_dir, PARAMS_FILE)
  if not tf.io.gfile.exists(saved):
    raise UserError(
      f"--model_dir={model_dir} holds the checkpoint {checkpoint}, but no params.yaml that says "
      "of which model. Use another directory, or put params.yaml back."
    )
  before = _load_params(saved)["task"]["model"]
  changes = list(_differences(before, _plain(params.task.model.as_dict())))
  if changes:
    raise UserError(
      f"--model_dir={model_dir} holds a checkpoint of another model ({checkpoint}). It differs "
      f"in {'; '.join(changes[:5])}. Use an empty directory, or the configuration of that run "
      f"({saved})."
    )


def check_precision(params: config_definitions.ExperimentConfig) -> None:
  """Raises a `UserError` if Model Garden cannot train in the configured precision."""
  if params.runtime.mixed_precision_dtype == "float16" and params.trainer.optimizer_config.ema:
    raise UserError(
      "runtime.mixed_precision_dtype=float16 together with trainer.optimizer_config.ema fails in "
      "Model Garden, whose loss scaling does not know the averaging optimizer. Use bfloat16, or "
      "set trainer.optimizer_config.ema to null."
    )


def check_init_checkpoint(task: config_definitions.TaskConfig) -> None:
  """Raises a `UserError` unless the checkpoint to start from exists and has the same backbone.

  Args:
    task: its `init_checkpoint` may be None. Where the training of that checkpoint left its
      configuration beside it, or one folder up, backbones are compared.
  """
  path = task.init_checkpoint
  if not path:
    return
  if not tf.io.gfile.isdir(path) and not tf.io.gfile.exists(f"{path}.index"):
    raise UserError(
      f"task.init_checkpoint={path}: no such checkpoint. Name the directory of a training, or a "
      "checkpoint in it without its suffix, for example runs/imagenet/best_ckpt."
    )
  last = tf.train.latest_checkpoint(path) if tf.io.gfile.isdir(path) else path
  problem = checkpoints.find_corruption(last) if last else None
  if problem:
    raise UserError(f"task.init_checkpoint={path}: {last} is damaged: {problem}. Name another one.")
  beside = path if tf.io.gfile.isdir(path) else os.path.dirname(path)
  for folder in (beside, os.path.dirname(beside.rstrip("/"))):
    saved = os.path.join(folder, PARAMS_FILE)
    if tf.io.gfile.exists(saved):
      before = _backbone(_load_params(saved)["task"]["model"])
      now = _backbone(_plain(task.model.as_dict()))
      changes = list(_differences(before, now, "task.model.backbone"))
      if changes:
        raise UserError(
          f"task.init_checkpoint={path} is of another backbone ({saved}). It differs in "
          f"{'; '.join(changes[:5])}. Configure the same, or use another checkpoint."
        )
      return


def _backbone(model: Mapping[str, Any]) -> dict[str, Any]:
  """Returns the type and the settings of the backbone that a model's configuration chooses."""
  kind = model["backbone"]["type"]
  settings = dict(model["backbone"][kind])
  settings.pop("implementation", None)  # weights do not depend on it
  return {"type": kind, kind: settings}


def _load_params(path: str) -> dict[str, Any]:
  with tf.io.gfile.GFile(path) as file:
    return yaml.safe_load(_without_tuples(file.read()))


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
      "directory that you may write to."
    ) from error


def _without_tuples(text: str) -> str:
  """Model Garden writes tuples with a Python tag that the safe loader refuses."""
  return text.replace("!!python/tuple", "")


def _plain(value: Any) -> Any:
  if isinstance(value, Mapping):
    return {key: _plain(v) for key, v in value.items()}
  return [_plain(v) for v in value] if isinstance(value, (list, tuple)) else value


def _differences(before: Any, now: Any, path: str = "task.model") -> Iterator[str]:
  """Yields 'path: before -> now' for every leaf that differs."""
  if isinstance(before, Mapping) and isinstance(now, Mapping):
    for key in sorted({*before, *now}):
      yield from _differences(before.get(key), now.get(key), f"{path}.{key}")
  elif before != now:
    yield f"{path}: {before!r} there, {now!r} here"


def find_label_file(input_path: Any) -> pathlib.Path | None:
  """Returns the label file that `make_tfrecords` wrote beside these TFRecords, if any."""
  if not isinstance(input_path, str) or not input_path:
    return None
  labels = pathlib.Path(input_path.split(",")[0].strip()).parent / LABELS_FILE
  return labels if labels.is_file() else None
