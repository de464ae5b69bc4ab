"""Seeded and bitwise reproducible runs."""

from __future__ import annotations

import tensorflow as tf
import tf_keras
from official.core import config_definitions

from sasa_tf.errors import UserError
from sasa_tf.training.resilience import checkpoints


def enable_determinism(
  params: config_definitions.ExperimentConfig, seed: int, model_dir: str
) -> config_definitions.ExperimentConfig:
  """Makes TensorFlow deterministic in this process, and returns the configuration to run.

  Two runs are equal if they were interrupted at the same steps, or never. For arguments see
  `set_seed`.

  Raises:
    UserError: a tf.data service provides data, in the order in which its workers are ready.
  """
  for name in ("train_data", "validation_data"):
    if getattr(params.task, name).enable_tf_data_service:
      raise UserError(
        f"--deterministic: task.{name}.enable_tf_data_service=true: the order of the images "
        "depends on the workers of the service. Set it to false, or omit --deterministic."
      )
  tf.config.experimental.enable_op_determinism()
  return _replace_data(set_seed(params, seed, model_dir), deterministic=True)


def set_seed(
  params: config_definitions.ExperimentConfig, seed: int, model_dir: str
) -> config_definitions.ExperimentConfig:
  """Sets the seed of this process, and returns the configuration to run.

  Checkpoints do not hold the state of the input pipeline, so a resumed run shuffles and augments
  from the start. To avoid repeating the first images, the step of the checkpoint is added to the
  seed.

  Args:
    params: configuration of the experiment.
    seed: seed of the weights, the order of the data and the augmentation.
    model_dir: directory of the run, which may hold a checkpoint to resume from.
  """
  last = checkpoints.latest_valid(model_dir)
  seed += checkpoints.step_of(last) if last else 0
  tf_keras.utils.set_random_seed(seed % (1 << 32))
  return _replace_data(params, seed=seed)


def _replace_data(
  params: config_definitions.ExperimentConfig, **fields: object
) -> config_definitions.ExperimentConfig:
  data = {
    name: getattr(params.task, name).replace(**fields) for name in ("train_data", "validation_data")
  }
  params = params.replace(task=params.task.replace(**data))
  params.lock()
  return params
