"""A configuration and how it is used."""

from __future__ import annotations

import os
from typing import Any, NamedTuple

from official.core import config_definitions
from official.vision.configs import image_classification, retinanet


class Use(NamedTuple):
  """What the relations are checked for.

  Attributes:
    params: configuration of the experiment.
    mode: Model Garden's mode, "export", or None if it is not known.
    num_logical_cpus: number of replicas on the CPU, or 0.
  """

  params: config_definitions.ExperimentConfig
  mode: str | None
  num_logical_cpus: int = 0

  @property
  def trains(self) -> bool:
    """Whether this mode trains."""
    return self.mode is not None and "train" in self.mode

  @property
  def evaluates(self) -> bool:
    """Whether this mode evaluates."""
    return self.mode is not None and "eval" in self.mode

  @property
  def builds_model(self) -> bool:
    """Whether the model is built."""
    return self.mode is not None

  @property
  def model(self) -> Any:
    """The configuration of the model."""
    return self.params.task.model

  @property
  def is_classification(self) -> bool:
    """Whether the task is image classification."""
    return isinstance(self.params.task, image_classification.ImageClassificationTask)

  @property
  def is_detection(self) -> bool:
    """Whether the task is RetinaNet's."""
    return isinstance(self.params.task, retinanet.RetinaNetTask)

  @property
  def data(self) -> dict[str, config_definitions.DataConfig]:
    """The data that this mode reads, by key."""
    task = self.params.task
    used = {"task.train_data": self.trains, "task.validation_data": self.evaluates}
    return {key: getattr(task, key.split(".")[1]) for key, is_used in used.items() if is_used}

  @property
  def is_multi_worker(self) -> bool:
    """Whether several processes may train together."""
    runtime = self.params.runtime
    return runtime.distribution_strategy == "multi_worker_mirrored" or bool(
      runtime.worker_hosts or os.environ.get("TF_CONFIG")
    )

  @property
  def num_replicas(self) -> int | None:
    """The number of replicas, or None if other machines or a TPU decide it."""
    runtime = self.params.runtime
    if self.is_multi_worker or runtime.distribution_strategy == "tpu":
      return None
    if runtime.distribution_strategy != "mirrored":
      return 1
    return max(1, self.num_logical_cpus or runtime.num_gpus)

  @property
  def runs_on_cpu(self) -> bool:
    """Whether the model runs on the CPU."""
    runtime = self.params.runtime
    return runtime.num_gpus == 0 and runtime.distribution_strategy != "tpu"
