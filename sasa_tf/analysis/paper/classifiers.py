"""Builds the classifiers of the paper's tables and counts their operations and parameters."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from typing import Any

import keras

from sasa_tf.analysis.cost import ModelCost, cost_model
from sasa_tf.analysis.paper.tables import MODELS
from sasa_tf.keras import SASAResNet, SASAResNetClassifier
from sasa_tf.reporting import track

IMAGENET_SHAPE = (224, 224, 3)
IMAGENET_CLASSES = 1000


def build_classifier(
  *,
  num_classes: int = IMAGENET_CLASSES,
  input_shape: Sequence[int] = IMAGENET_SHAPE,
  name: str | None = None,
  **arguments: Any,
) -> keras.Model:
  """Returns a Keras 3 `SASAResNetClassifier`, or a `SASAResNet` if `num_classes` is 0.

  The kernels are zeros, as random initialization would take half of the time.

  Args:
    num_classes: number of classes; 0 for the backbone without a head.
    input_shape: (H, W, C).
    name: of the model; by default "sasa_resnet50", "resnet50" and so on.
    **arguments: arguments of `SASAResNet`.
  """
  if name is None:
    prefix = "sasa_" if arguments.get("attention_groups", True) else ""
    name = f"{prefix}resnet{arguments.get('model_id', 50)}"
  arguments |= {"input_shape": tuple(input_shape), "kernel_initializer": "zeros", "name": name}
  if not num_classes:
    return SASAResNet(**arguments)
  return SASAResNetClassifier(num_classes=num_classes, **arguments)


@functools.cache
def paper_cost(model: str) -> ModelCost:
  """Returns the cost of a model of the paper's tables at 224 pixels, in the convention "paper".

  Args:
    model: key of `tables.MODELS`. The result is cached.
  """
  return cost_model(build_classifier(name=model, **MODELS[model]))


def count_paper_models(models: Iterable[str]) -> None:
  """Fills the cache of `paper_cost`, with a progress bar."""
  for name in track(list(dict.fromkeys(models)), "Counting", unit="model"):
    paper_cost(name)
