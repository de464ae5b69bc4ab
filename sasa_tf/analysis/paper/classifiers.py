"""Classifiers to count: SASAResNet with the head that Model Garden gives it."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from typing import Any

import keras
from rich.console import Console
from rich.progress import track

from sasa_tf.analysis.cost import ModelCost, cost_model
from sasa_tf.analysis.paper.tables import MODELS
from sasa_tf.keras import SASAResNet

IMAGENET_SHAPE = (224, 224, 3)
IMAGENET_CLASSES = 1000


def build_classifier(
  *,
  num_classes: int = IMAGENET_CLASSES,
  input_shape: Sequence[int] = IMAGENET_SHAPE,
  name: str | None = None,
  **arguments: Any,
) -> keras.Model:
  """Returns SASAResNet with global average pooling and a dense layer, of Keras 3.

  The large weights are zeros: drawing them would take half of the time.

  Args:
    num_classes: of the dense layer; 0 for the backbone alone.
    input_shape: (H, W, C).
    name: of the model; by default "sasa_resnet50" or the like.
    **arguments: of `SASAResNet`.
  """
  zeros: dict[str, Any] = {"kernel_initializer": "zeros"}
  backbone = SASAResNet(input_shape=tuple(input_shape), **zeros, **arguments)
  if name is None:
    made = backbone.get_config()
    name = f"{'sasa_' if made['attention_groups'] else ''}resnet{made['model_id']}"
  if not num_classes:
    return keras.Model(backbone.inputs, backbone.outputs, name=name)
  features = keras.layers.GlobalAveragePooling2D(name="pool")(backbone.outputs[-1])
  logits = keras.layers.Dense(num_classes, name="classifier", **zeros)(features)
  return keras.Model(backbone.inputs, logits, name=name)


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
