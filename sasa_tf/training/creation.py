"""Creates model, optimizer and trainer, with the keys of the configuration in their errors."""

from __future__ import annotations

import contextlib
import pathlib
import re
import traceback
from collections.abc import Iterator
from typing import Any

import tensorflow as tf
from official.core import base_task, config_definitions, train_utils

import sasa_tf
from sasa_tf.errors import UserError
from sasa_tf.modeling.builders.build_errors import section_errors, without_gin_frames
from sasa_tf.training.trainer import Trainer

_PACKAGE = pathlib.Path(sasa_tf.__file__).parent
# Model Garden's recovery from large losses, without its numbers of times.
_LOSS_BOUND = re.compile(
  r"The loss value is (NaN|\S+, which is larger than the bound \S+)(?=,| after)"
)
# A frame in a message of AutoGraph.
_FRAME = re.compile(r'^\s+File "([^"]+)", line \d+, in ', re.MULTILINE)


def create_trainer(
  params: config_definitions.ExperimentConfig, task: base_task.Task, **arguments: Any
) -> Trainer:
  """Does what Model Garden's `create_trainer` does. Must be called in the strategy's scope.

  Args:
    params: configuration of the experiment.
    task: task that it configures.
    **arguments: of `Trainer`.

  Raises:
    ConfigError: Model Garden or Keras rejects the configuration. The message names its keys.
  """
  with without_gin_frames(), section_errors("task", params.task.as_dict(), "the training"):
    # The task names the keys of its model.
    model = task.build_model()
    config = params.trainer.optimizer_config.as_dict()
    with section_errors("trainer.optimizer_config", config, "the optimizer"):
      optimizer = train_utils.create_optimizer(task, params)
    return Trainer(params, task, model, optimizer, **arguments)


@contextlib.contextmanager
def translate_step_errors(params: config_definitions.ExperimentConfig) -> Iterator[None]:
  """Names keys in errors that Model Garden and Keras raise while steps are traced.

  Errors that TensorFlow's operations raise when they run, and those of this library, are not
  changed.

  Args:
    params: configuration of the experiment.

  Raises:
    ConfigError: Model Garden or Keras rejects the configuration.
  """
  try:
    yield
  except (tf.errors.OpError, UnicodeDecodeError, OSError, MemoryError):
    raise  # UnicodeDecodeError: an operation's error that quotes a record, see parse_errors
  except Exception as error:
    if found := _LOSS_BOUND.search(str(error)):
      raise UserError(
        f"{found[0]}: trainer.loss_upper_bound={params.trainer.loss_upper_bound}, and "
        f"trainer.recovery_max_trials={params.trainer.recovery_max_trials} restarts from the last "
        "checkpoint did not help. Lower the learning rate, or raise the bound."
      ) from error
    if _PACKAGE in pathlib.Path(_origin(error)).parents:
      raise
    with section_errors("task", params.task.as_dict(), "the training step"):
      raise


def _origin(error: Exception) -> str:
  """Returns the file that raised an error, also if AutoGraph passed it on."""
  frames = _FRAME.findall(str(error))
  return frames[-1] if frames else traceback.extract_tb(error.__traceback__)[-1].filename
