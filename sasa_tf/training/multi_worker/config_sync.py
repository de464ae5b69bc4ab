"""What the processes of a training tell each other before the first step."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from typing import Any, NamedTuple

import tensorflow as tf

from sasa_tf.errors import UserError

_MOST_DIFFERENCES = 5


def all_gather_strings(
  distribution: tf.distribute.Strategy, text: str, num_processes: int
) -> list[str]:
  """Returns the text of every process, the chief's first; waits until all have called.

  Args:
    distribution: of the training.
    text: of this process.
    num_processes: that train together.
  """

  def gathered(values: tf.Tensor) -> tf.Tensor:
    # Of a type that every implementation of collectives gathers, on any device.
    replicas = distribution.experimental_distribute_values_from_function(
      lambda context: tf.cast(values, tf.float32)
    )
    return distribution.gather(replicas, axis=0)

  # Never empty: of nothing from everybody, TensorFlow 2.20's gathering makes a segmentation fault.
  encoded = f"{text}\n".encode()
  lengths = tf.cast(gathered(tf.constant([len(encoded)])), tf.int32).numpy().tolist()
  everything = gathered(tf.io.decode_raw(encoded, tf.uint8))
  everything = tf.cast(everything, tf.uint8).numpy().tobytes()
  ends = list(itertools.accumulate(lengths))
  of_replicas = [everything[end - length : end] for end, length in zip(ends, lengths, strict=True)]
  of_processes = of_replicas[:: len(of_replicas) // num_processes]
  return [part.decode().removesuffix("\n") for part in of_processes]


class WorkerConfig(NamedTuple):
  """What a process says of itself.

  Attributes:
    name: of the process, for people.
    facts: {dotted name: value as JSON knows it} that must be the same in every process.
    seed: that the process proposes for the order of the input files.
  """

  name: str
  facts: dict[str, Any]
  seed: int


def sync_config(
  distribution: tf.distribute.Strategy, own: WorkerConfig, num_processes: int
) -> WorkerConfig:
  """Returns the chief's statement once every process has made one.

  Args:
    distribution: of the training.
    own: statement of this process.
    num_processes: that train together.

  Raises:
    UserError: facts differ; all processes name the same differences.
  """
  texts = all_gather_strings(distribution, json.dumps(own), num_processes)
  chief, *others = (WorkerConfig(*json.loads(text)) for text in texts)
  differences = [line for other in others for line in _differences(chief, other)]
  if differences:
    more = len(differences) - _MOST_DIFFERENCES
    raise UserError(
      "the processes of this training were not started alike: "
      f"{'; '.join(differences[:_MOST_DIFFERENCES])}{f'; and {more} more' if more > 0 else ''}. "
      "Start all with the same version, flags, files and data; only TF_CONFIG's task may differ."
    )
  return chief


def _differences(chief: WorkerConfig, other: WorkerConfig) -> list[str]:
  return [
    f"{key} is {chief.facts.get(key)!r} in the {chief.name}, but {other.facts.get(key)!r} in the "
    f"{other.name}"
    for key in sorted({*chief.facts, *other.facts})
    if chief.facts.get(key) != other.facts.get(key)
  ]


def flatten(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
  """Returns {dotted name: leaf} of nested mappings, for comparing them."""
  flat = {}
  for key, child in value.items():
    if isinstance(child, Mapping):
      flat.update(flatten(child, f"{prefix}{key}."))
    else:
      flat[f"{prefix}{key}"] = child
  return flat
