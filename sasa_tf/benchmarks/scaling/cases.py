"""What the scaling program measures: models on 1, 2, 4 devices, and how they reduce."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from typing import Any

import tensorflow as tf
from official.core import config_definitions

from sasa_tf.errors import UserError
from sasa_tf.training import experiment

# Name of a model -> its groups with attention.
MODELS = {"conv": [], "conv_stem+attention": [1, 2, 3, 4]}
# How the replicas exchange their gradients. `none` trains each replica on its own: what the others
# could reach if the exchange cost nothing.
REDUCTIONS = ("between", "none")


@dataclasses.dataclass(frozen=True)
class Case:
  """What is measured.

  Attributes:
    model: key of `MODELS`.
    replicas: devices of the host that train.
    reduction: of `REDUCTIONS`; a single replica has none.
    batch_size: images a replica.
    image_size: pixels.
    model_id: layers of the ResNet.
    dtype: "bfloat16" for mixed precision with it, or "float32".
  """

  model: str
  replicas: int
  reduction: str
  batch_size: int
  image_size: int
  model_id: int
  dtype: str


def find_devices() -> list[str]:
  """Returns the names of the GPUs or, without any, of the logical processors."""
  kind = "GPU" if tf.config.list_logical_devices("GPU") else "CPU"
  return [f"{kind}:{i}" for i in range(len(tf.config.list_logical_devices(kind)))]


def default_replicas(available: int) -> list[int]:
  """Returns the powers of 2 up to the devices that there are."""
  return [2**i for i in range(available.bit_length())]


def plan(
  models: Sequence[str],
  replicas: Sequence[int],
  reductions: Sequence[str],
  device_names: Sequence[str],
  **sizes: Any,
) -> list[Case]:
  """Returns the cases in the order in which to measure them.

  Args:
    models: keys of `MODELS`.
    replicas: counts of devices.
    reductions: of `REDUCTIONS`.
    device_names: of `find_devices`.
    **sizes: the other fields of `Case`.

  Raises:
    UserError: a name that does not exist, or more replicas than devices.
  """
  for flag, names, known in (("models", models, MODELS), ("reductions", reductions, REDUCTIONS)):
    unknown = set(names) - set(known)
    if unknown:
      raise UserError(
        f"--{flag}: expected some of {', '.join(known)}; received {', '.join(sorted(unknown))}."
      )
  if max(replicas) > len(device_names):
    raise UserError(
      f"--replicas={max(replicas)}, but there are {len(device_names)} devices "
      f"({', '.join(device_names)}). Ask for fewer, or for a dry run set --num_logical_cpus."
    )
  return [
    Case(model, count, reduction, **sizes)
    for model in models
    for count in sorted(replicas)
    for reduction in (reductions if count > 1 else ["none"])
  ]


def configuration(case: Case) -> config_definitions.ExperimentConfig:
  """Returns `sasa_resnet_imagenet` for a case; without the average of the weights."""
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
        # Of noise there is nothing to learn; the rate of a batch of 4,096 may diverge.
        "learning_rate": {"cosine": {"initial_learning_rate": 0.1}},
      }
    },
  }
  return experiment.load_experiment("sasa_resnet_imagenet", params_override=json.dumps(changes))
