"""Additional actions of a training, which packages above this one provide."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import tensorflow as tf
import tf_keras
from official.core import base_task, config_definitions


class TrainingContext(NamedTuple):
  """What an additional action may use. It exists in the process that writes the checkpoints.

  Attributes:
    params: configuration of the run.
    task: task that it configures.
    model: the model that is trained.
    strategy: strategy of the run.
    current_step: returns the global step.
    summary_writer: of the training's TensorBoard log.
  """

  params: config_definitions.ExperimentConfig
  task: base_task.Task
  model: tf_keras.Model
  strategy: tf.distribute.Strategy
  current_step: Callable[[], int]
  summary_writer: tf.summary.SummaryWriter


# Called with the metrics after each loop of steps.
TrainAction = Callable[[Mapping[str, Any]], None]
# Called once, before the first step.
TrainActionFactory = Callable[[TrainingContext], TrainAction]
