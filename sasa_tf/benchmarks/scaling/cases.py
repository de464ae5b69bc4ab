"""Cases of the scaling benchmark: models on 1, 2, 4, ... devices, with and without all-reduce."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from typing import Any

import tensorflow as tf
from official.core import config_definitions

from sasa_tf.errors import UserError
from sasa_tf.training import experiment

# Name of a model -> its stages with attention.
MODELS = {"conv": [], "conv_stem+attention": [1, 2, 3, 4]}
# How the replicas exchange their gradients: in an all-reduce between two XLA programs or within a
# single one, or not at all, in the step of a single one, whose speed that bounds.
ALL_REDUCE_MODES = ("between_programs", "in_program", "none")


@dataclasses.dataclass(frozen=True)
class Case:
  """A configuration to measure.

  Attributes:
    model: key of `MODELS`.
    replicas: number of devices of the host that train.
    all_reduce: one of `ALL_REDUCE_MODES`; "none" for a single replica.
    batch_size: images per replica.
    image_size: H and W.
    model_id: depth of the ResNet.
    dtype: "bfloat16" for mixed precision, or "float32".
  """

  model: str
  replicas: int
  all_reduce: str
  batch_size: int
  image_size: int
  model_id: int
  dtype: str


def find_devices() -> list[str]:
  """Returns the names of the GPUs, or of the logical CPUs if there are no GPUs."""
  kind = "GPU" if tf.config.list_logical_devices("GPU") else "CPU"
  return [f"{kind}:{i}" for i in range(len(tf.config.list_logical_devices(kind)))]


def default_replicas(num_devices: int) -> list[int]:
  """Returns the powers of 2 up to the number of devices."""
  return [2**i for i in range(num_devices.bit_length())]


def make_cases(
  models: Sequence[str],
  replicas: Sequence[int],
  all_reduce: Sequence[str],
  device_names: Sequence[str],
  **sizes: Any,
) -> list[Case]:
  """Returns the cases in the order of measurement.

  Args:
    models: keys of `MODELS`.
    replicas: numbers of devices.
    all_reduce: some of `ALL_REDUCE_MODES`.
    device_names: from `find_devices`.
    **sizes: the other fields of `Case`.

  Raises:
    UserError: a name is unknown, or there are more replicas than devices.
  """
  for flag, names, known in (
    ("models", models, MODELS),
    ("all_reduce", all_reduce, ALL_REDUCE_MODES),
  ):
    unknown = set(names) - set(known)
    if not names:
      raise UserError(f"--{flag} is empty; expected some of {', '.join(known)}.")
    if unknown:
      raise UserError(
        f"--{flag}: expected some of {', '.join(known)}; received {', '.join(sorted(unknown))}."
      )
  if max(replicas) > len(device_names):
    raise UserError(
      f"--replicas={max(replicas)}, but there are {len(device_names)} devices "
      f"({', '.join(device_names)}). Request fewer, or set --num_logical_cpus for a dry run."
    )
  return [
    Case(model, count, mode, **sizes)
    for model in models
    for count in sorted(replicas)
    for mode in (all_reduce if count > 1 else ["none"])
  ]


def configuration(case: Case) -> config_definitions.ExperimentConfig:
  """Returns the experiment `sasa_resnet_imagenet` for a case, without weight averaging."""
  changes = {
    "runtime": {"enable_xla": True, "mixed_precision_dtype": case.dtype},
    "task": {
      "model": {
        "input_size": [case.image_size, case.image_size, 3],
        "backbone": {
          "sasa_resnet": {"model_id": case.model_id, "attention_groups": MODELS[case.model]}
        },
      },
      "train_data": {"global_batch_size": case.batch_size * case.replicas, "dtype": case.dtype},
    },
    "trainer": {
      "optimizer_config": {
        "ema": None,
        # Random images cannot be learned, and the learning rate for batches of 4,096 may diverge.
        "learning_rate": {"cosine": {"initial_learning_rate": 0.1}},
      }
    },
  }
  return experiment.load_experiment("sasa_resnet_imagenet", params_override=json.dumps(changes))
