"""The accuracy of a classifier before and after its quantization."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from sasa_tf.serving.runtimes.registry import find_runtime
from sasa_tf.serving.verification.runtime_process import run_in_fresh_process
from sasa_tf.serving.verification.trained_model import TrainedModel

_TIME_LIMIT_SECONDS = 1800


class AccuracyChange(NamedTuple):
  """Shares of images whose most probable class is their label."""

  before: float
  after: float
  num_images: int

  def __str__(self) -> str:
    """Returns the numbers as text."""
    return f"accuracy {self.before:.1%} -> {self.after:.1%} on {self.num_images} images"


def measure_accuracy(
  trained: TrainedModel, labels: Sequence[int], format_name: str, path: pathlib.Path
) -> AccuracyChange:
  """Returns the accuracy of a trained classifier and of an exported one on the same images.

  Args:
    trained: model and images.
    labels: of the images.
    format_name: of the exported model, which has the prepared signature.
    path: of the exported model.
  """
  ((_, prepared),) = trained.inputs("prepared")
  found = run_in_fresh_process(
    find_runtime(format_name),
    path,
    {"prepared/0": prepared},
    time_limit_seconds=_TIME_LIMIT_SECONDS,
  )
  probs = (trained.outputs("prepared")["probs"], found.outputs["prepared/0"]["probs"])
  before, after = (float(np.mean(each.argmax(axis=1) == np.asarray(labels))) for each in probs)
  return AccuracyChange(before, after, len(labels))
