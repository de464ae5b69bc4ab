"""A training action that writes what the attention layers attend to, for TensorBoard."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from sasa_tf.analysis.attention import MapGeometry, WindowStatistics
from sasa_tf.analysis.attention.layer_inputs import attention_calls, attention_names
from sasa_tf.analysis.attention.windows import window_weights
from sasa_tf.analysis.training_summaries import window_images
from sasa_tf.analysis.training_summaries.schedule import SummarySchedule
from sasa_tf.errors import UserError
from sasa_tf.serving.modules.normalization import denormalize
from sasa_tf.training import checks
from sasa_tf.training.train_actions import TrainingContext

NUM_IMAGES = 3
# Statistics are means over a grid of at most so many rows and columns of queries.
_GRID = 16


def check_supported(params: Any, mode: str) -> None:
  """Checks that a run can have attention summaries.

  Args:
    params: configuration of the experiment.
    mode: Model Garden's mode.

  Raises:
    UserError: it cannot.
  """
  if "train" not in mode:
    raise UserError(
      f"--attention_summaries describes a training; received --mode={mode}. Remove the flag. "
      "`python -m sasa_tf.bin.attention_maps` shows the attention of a checkpoint."
    )
  if params.runtime.distribution_strategy == "tpu":
    raise UserError(
      "--attention_summaries runs the model layer by layer, which TPUs do not support. Remove the "
      "flag, and run `python -m sasa_tf.bin.attention_maps` on a checkpoint instead."
    )
  checks.check_data("task.validation_data", params.task.validation_data)


class AttentionSummaries:
  """Writes entropy, distance and padding share of each attention layer, and images of windows.

  The images are the first ones of the validation data, so they are the same after a resume. Only
  the process that writes the checkpoints writes summaries, without communication with others.
  """

  def __init__(
    self,
    context: TrainingContext,
    *,
    interval: int | None = None,
    clock: Callable[[], float] = time.monotonic,
  ):
    """Reads the images.

    Args:
      context: the training.
      interval: number of steps between summaries; None to choose it, see `SummarySchedule`.
      clock: returns seconds.

    Raises:
      UserError: the model has no attention layer, or the images do not exist.
    """
    try:
      attention_names(context.model)
    except UserError as error:
      raise UserError(f"--attention_summaries: {error} Or remove the flag.") from error
    self._context, self._clock = context, clock
    self._images = _validation_images(context)
    self._shown = np.clip(denormalize(self._images).numpy(), 0, 255)
    self._schedule: SummarySchedule | None = SummarySchedule(
      context.params.trainer.train_steps, context.current_step(), interval, clock
    )

  def __call__(self, output: Mapping[str, Any]) -> None:
    """Training action: writes a summary if one is due."""
    step = self._context.current_step()
    if self._schedule is None or not self._schedule.is_due(step):
      return
    start = self._clock()
    try:
      self.write(step)
    except tf.errors.ResourceExhaustedError:
      # A training that fits into the memory must not end because of its summaries.
      self._schedule = None
      print(
        f"warning: step {step}: the memory is too small for --attention_summaries. There will be "
        "no further ones in this run.",
        file=sys.stderr,
      )
    else:
      self._schedule.record(step, self._clock() - start)

  def write(self, step: int) -> None:
    """Writes a summary."""
    with self._context.summary_writer.as_default(step=step):
      for layer in self._layers():
        _write_statistics(layer.name, layer.statistics)
        if layer.heat is not None:
          images = window_images.window_images(self._shown, layer.heat, layer.geometry)
          tf.summary.image(f"attention_windows/{layer.name}", images, max_outputs=NUM_IMAGES)

  def _layers(self) -> Iterator[_Layer]:
    strategy = self._context.strategy
    # In the context of one replica, variables have its values, and nothing is reduced over others.
    with strategy.scope(), tf.distribute.ReplicaContext(strategy, 0):
      for call in attention_calls(self._context.model, self._images):
        image_size, size = (tuple(x.shape[1:3]) for x in (self._images, call.inputs))
        geometry = MapGeometry.of(call.layer, size, image_size)
        grid, tiling = geometry.grid(_GRID), window_images.tiling_queries(geometry)
        weights = window_weights(call.layer, call.inputs, np.concatenate([grid, tiling]))
        statistics = WindowStatistics.of(weights[:, : len(grid)], grid, geometry)
        heat = None
        if call.part == 0:  # pyramid and head have dozens of calls
          tiles = weights[:, len(grid) :].mean(axis=2)
          heat = window_images.heat_map(tiles, tiling, geometry)
        yield _Layer(call.name.replace(":", "_"), geometry, statistics, heat)


class _Layer(NamedTuple):
  """What a summary has of a layer; heat [B, H, W] is None for pyramid and head of a detector."""

  name: str
  geometry: MapGeometry
  statistics: WindowStatistics
  heat: np.ndarray | None


def _write_statistics(name: str, statistics: WindowStatistics) -> None:
  values = {
    "attention_entropy": statistics.entropy,
    "attention_distance": statistics.image_distance,
    "attention_padding_share": statistics.padding_share,
  }
  for tag, heads in values.items():
    tf.summary.scalar(f"{tag}/{name}", float(np.mean(heads)))


def _validation_images(context: TrainingContext) -> tf.Tensor:
  """Returns the first images of the validation data, as the model takes them: [B, H, W, C]."""
  data = context.params.task.validation_data.replace(
    is_training=False, global_batch_size=NUM_IMAGES, drop_remainder=False, cache=False
  )
  for images, _ in context.task.build_inputs(data).take(1):
    return tf.cast(images, tf.float32)
  raise UserError(
    "--attention_summaries shows images of task.validation_data, which has none. Set "
    "task.validation_data, or remove the flag."
  )
