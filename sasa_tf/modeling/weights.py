"""Weights by name, in the same spelling for Keras 3 and tf_keras."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np


def named_weights(model: Any) -> dict[str, Any]:
  """Returns {"layer/weight": variable} of a model, including those that are not trained.

  The names are equal for a model of `sasa_tf.keras` and the same one of `sasa_tf.tf_keras`.

  Args:
    model: a model whose layers hold the weights, as all models of this library.
  """
  found: dict[str, Any] = {}
  for layer in model.layers:
    for weight in layer.weights:
      # "kernel" in Keras 3, "layer/kernel:0" in tf_keras.
      name = weight.name.partition(":")[0].rpartition("/")[2]
      found[f"{layer.name}/{name}"] = weight
  return found


def weight_values(model: Any) -> dict[str, np.ndarray]:
  """Returns {"layer/weight": value} of a model."""
  return {name: np.asarray(weight) for name, weight in named_weights(model).items()}


def assign_weights(model: Any, values: Mapping[str, np.ndarray]) -> None:
  """Assigns all weights of a model.

  Args:
    model: a built model.
    values: {"layer/weight": value}; others than the model's are ignored.

  Raises:
    ValueError: a weight is missing, or has another shape. Nothing is assigned.
  """
  assign_named(named_weights(model), values, model.name)


def assign_named(weights: Mapping[str, Any], values: Mapping[str, np.ndarray], model: str) -> None:
  """Assigns variables.

  Args:
    weights: {name: variable}.
    values: {name: value}; others than those of `weights` are ignored.
    model: name of the model, for messages.

  Raises:
    ValueError: a value is missing, or has another shape. Nothing is assigned.
  """
  problems = []
  for name, weight in weights.items():
    expected = tuple(weight.shape)
    if name not in values:
      problems.append(f"{name} is missing (expected shape {expected})")
    elif values[name].shape != expected:
      problems.append(f"{name} has shape {values[name].shape} (expected {expected})")
  if problems:
    more = f"; and {len(problems) - 3} more" if len(problems) > 3 else ""
    raise ValueError(
      f"{len(problems)} of {len(weights)} weights do not fit the model {model!r}: "
      f"{'; '.join(problems[:3])}{more}. Use the weights of the same architecture."
    )
  for name, weight in weights.items():
    weight.assign(
      values[name].astype(
        weight.dtype if isinstance(weight.dtype, str) else weight.dtype.as_numpy_dtype
      )
    )


def copy_weights(source: Any, target: Any) -> None:
  """Copies all weights of a model to another one of the same architecture and any Keras version.

  Args:
    source: a model of `sasa_tf.keras` or `sasa_tf.tf_keras`.
    target: the model to copy to.

  Raises:
    ValueError: the architectures differ. Nothing is copied.
  """
  assign_weights(target, weight_values(source))
