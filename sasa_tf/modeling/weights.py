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
  return {
    f"{layer.name}/{name}": weight
    for layer in model.layers
    for name, weight in layer_weights(layer).items()
  }


def layer_weights(layer: Any) -> dict[str, Any]:
  """Returns {name: variable} of a layer, in the same spelling for both Keras versions."""
  # "kernel" in Keras 3, "layer/kernel:0" in tf_keras.
  return {weight.name.partition(":")[0].rpartition("/")[2]: weight for weight in layer.weights}


def weight_values(model: Any) -> dict[str, np.ndarray]:
  """Returns {"layer/weight": value} of a model."""
  return {name: np.asarray(weight) for name, weight in named_weights(model).items()}


def assign_weights(
  model: Any, values: Mapping[str, np.ndarray], *, ignore_others: bool = False
) -> None:
  """Assigns all weights of a model.

  Args:
    model: a built model.
    values: {"layer/weight": value}.
    ignore_others: whether `values` may hold weights that the model lacks, as those of a classifier
      do for its backbone.

  Raises:
    ValueError: a weight is missing, has another shape, or is none of the model. Nothing is
      assigned.
  """
  assign_named(named_weights(model), values, model.name, ignore_others=ignore_others)


def assign_named(
  weights: Mapping[str, Any],
  values: Mapping[str, np.ndarray],
  model: str,
  *,
  ignore_others: bool = False,
) -> None:
  """Assigns variables.

  Args:
    weights: {name: variable}.
    values: {name: value}.
    model: name of the model, for messages.
    ignore_others: whether `values` may hold other names than `weights`.

  Raises:
    ValueError: a value is missing, has another shape, or belongs to none of the weights. Nothing is
      assigned.
  """
  problems = []
  for name, weight in weights.items():
    expected = tuple(weight.shape)
    if name not in values:
      problems.append(f"{name} is missing (expected shape {expected})")
    elif values[name].shape != expected:
      problems.append(f"{name} has shape {values[name].shape} (expected {expected})")
  others = [] if ignore_others else sorted(values.keys() - weights.keys())
  problems += [f"{name} is no weight of the model" for name in others]
  if problems:
    more = f"; and {len(problems) - 3} more" if len(problems) > 3 else ""
    raise ValueError(
      f"{len(problems)} of {len(weights) + len(others)} weights do not fit the model {model!r}: "
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
