"""A lower bound of the memory of a run on the CPU, compared with that of the machine."""

from __future__ import annotations

import os
import pathlib
import resource
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from sasa_tf.modeling.resnet import BLOCKS, WIDTHS, scaled_width
from sasa_tf.training.config_validation.problems import Problem, show
from sasa_tf.training.config_validation.use import Use

_GIB = 1 << 30
# Bottleneck block of width f: the tensors that the backward pass reads have 2 f + 2 * 4 f channels
# at least, the pointwise kernels 8 f^2 weights, and the attention 3 f^2.
_CHANNELS, _WEIGHTS = 10, 11
# Weights, gradients and one slot of the optimizer.
_COPIES = 3
_CGROUP_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
_WARN_ABOVE = 0.5


class Estimate(NamedTuple):
  """A lower bound in bytes.

  Attributes:
    data: key of the data.
    batch: its global batch size.
    per_image: bytes for each image of a batch.
    model: bytes of the model.
  """

  data: str
  batch: int
  per_image: float
  model: float

  @property
  def total(self) -> float:
    """All bytes."""
    return self.batch * self.per_image + self.model


def find_problems(use: Use) -> Iterator[Problem]:
  """Yields a problem for data whose batch does not fit into the memory of this machine."""
  available = available_memory()
  for estimate in estimates(use):
    if estimate.total <= available:
      continue
    paths = (f"{estimate.data}.global_batch_size", "task.model")
    needs = (
      f"needs at least {format_gib(estimate.total)} of memory (images and activations "
      f"{format_gib(estimate.batch * estimate.per_image)}, weights {format_gib(estimate.model)}) "
      f"for task.model.input_size={show(use.model.input_size)} and task.model.num_classes="
      f"{use.model.num_classes}, but this machine has {format_gib(available)}"
    )
    fitting = int((available - estimate.model) / estimate.per_image / 2)
    fix = f"Use a batch of at most {fitting}" if fitting > 0 else "Use a smaller model"
    devices = ", or set runtime.num_gpus" if use.runs_on_cpu else ""
    yield Problem(
      f"{paths[0]}={estimate.batch}: expected a size that fits into the memory. It {needs}. {fix}"
      f"{devices}.",
      paths,
    )


def warnings(use: Use) -> Iterator[str]:
  """Yields a warning for data that needs a large part of the memory of this machine."""
  available = available_memory()
  for estimate in estimates(use):
    if estimate.total > _WARN_ABOVE * available:
      yield (
        f"{estimate.data}.global_batch_size={estimate.batch} needs at least "
        f"{format_gib(estimate.total)} of the {format_gib(available)} of memory of this machine."
      )


def estimates(use: Use) -> list[Estimate]:
  """Returns a lower bound for each data of the run; [] if other machines share the batch."""
  if use.is_multi_worker or not (use.is_classification or use.is_detection):
    return []
  size = list(use.model.input_size)
  if len(size) != 3:
    return []
  result = []
  for key, data in use.data.items():
    trains = key == "task.train_data"
    # The batch that is computed, and the next one.
    per_image = 2.0 * size[0] * size[1] * 3 * _bytes(data.dtype)
    if use.is_classification:
      per_image += 4.0 * use.model.num_classes
    model = 0.0
    if use.runs_on_cpu:
      channels, weights = _backbone(use.model, size)
      if trains:
        per_image += channels * _bytes(use.params.runtime.mixed_precision_dtype or "float32")
      copies = (_COPIES if trains else 1) * (use.num_replicas or 1)
      model = 4.0 * weights * copies
    result.append(Estimate(key, data.global_batch_size, per_image, model))
  return result


def _backbone(model: Any, size: Sequence[int]) -> tuple[float, float]:
  """Returns lower bounds of the elements of the activations of an image and of the weights."""
  if model.backbone.type != "sasa_resnet":
    return 0.0, 0.0
  config = model.backbone.sasa_resnet
  stride = 1 if config.stem == "conv_small" else 4
  activations = weights = 0.0
  filters = 0
  for width, blocks, strides in zip(
    WIDTHS, BLOCKS[config.model_id], config.group_strides, strict=True
  ):
    stride *= strides
    filters = scaled_width(width, config.width_multiplier, 2 * config.num_heads)
    pixels = -(-size[0] // stride) * -(-size[1] // stride)
    activations += blocks * pixels * _CHANNELS * filters
    weights += blocks * _WEIGHTS * filters**2
  return activations, weights + 4.0 * filters * model.num_classes


def _bytes(dtype: str) -> int:
  return 4 if dtype == "float32" else 2


def available_memory() -> float:
  """Returns the memory that this process may use, in bytes."""
  limits = [float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))]
  for path in _CGROUP_LIMITS:
    try:
      text = pathlib.Path(path).read_text().strip()
    except OSError:
      continue
    if text.isdecimal():
      limits.append(float(text))
  address_space = resource.getrlimit(resource.RLIMIT_AS)[0]
  if address_space != resource.RLIM_INFINITY:
    limits.append(float(address_space))
  return min(limits)


def format_gib(size: float) -> str:
  """Returns a number of bytes in GiB."""
  return f"{size / _GIB:,.1f} GiB"
