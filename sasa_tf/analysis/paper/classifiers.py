"""Builds the classifiers of the paper's tables and counts their operations and parameters."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from typing import Any

import keras
from rich.console import Console
from rich.progress import track

from sasa_tf.analysis.cost import ModelCost, cost_model
from sasa_tf.analysis.paper.tables import MODELS
from sasa_tf.keras import SASAResNet, SASAResNetClassifier

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

  The kernels are zeros, because drawing them would take half of the time.

  Args:
    num_classes: units of the dense layer; 0 for the backbone alone.
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
  """Returns what a model of the paper's tables costs at 224 pixels, in the convention `paper`.

  Args:
    model: key of `paper_tables.MODELS`. Each is built once in a process.
  """
  return cost_model(build_classifier(name=model, **MODELS[model]))


def count_paper_models(models: Iterable[str]) -> None:
  """Counts models for `paper_cost` to return, with a progress bar where there is a terminal."""
  console = Console(stderr=True)
  names = list(dict.fromkeys(models))
  for name in track(
    names,
    f"building {len(names)} models",
    console=console,
    transient=True,
    disable=not console.is_terminal,
  ):
    paper_cost(name)
