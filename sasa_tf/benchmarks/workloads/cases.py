"""Cases to measure; those that differ only in the candidate form a group."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any

TARGETS = ("op", "layer", "model")
MODES = ("forward", "forward_backward")
DTYPES = ("float32", "bfloat16", "float16")


@dataclasses.dataclass(frozen=True)
class Case:
  """One candidate with one setting: everything but the machine that determines the results.

  Attributes:
    target: one of `TARGETS`.
    candidate: its name, see `sasa_tf.benchmarks.workloads.candidates`.
    mode: "forward", or "forward_backward", which adds the gradients of all inputs; for a model it
      is a training step.
    batch_size: B.
    shape: (H, W, C) of the input of the operation or layer; (size, size, 3) of a model's images.
    dtype: of the computation; the variables of layers and models are float32.
    jit: whether XLA compiles the step.
    num_heads: N.
    kernel_size: K of the attention window.
    dilation_rate: of the attention window.
    border: "zero" or "mask".
    model_id: depth of the ResNet; None if the target is not a model.
  """

  target: str
  candidate: str
  mode: str
  batch_size: int
  shape: tuple[int, int, int]
  dtype: str
  jit: bool
  num_heads: int = 8
  kernel_size: int = 7
  dilation_rate: int = 1
  border: str = "zero"
  model_id: int | None = None

  @classmethod
  def from_dict(cls, values: dict[str, Any]) -> Case:
    """Returns the case of a dictionary from `dataclasses.asdict` or from JSON."""
    return cls(**values | {"shape": tuple(values["shape"])})

  @property
  def group(self) -> Case:
    """The case without the candidate, equal for all cases of a group."""
    return dataclasses.replace(self, candidate="")

  @property
  def size(self) -> str:
    """The shape as in the flags, HxWxC."""
    return "x".join(map(str, self.shape))

  @property
  def work(self) -> str:
    """The mode as in reports."""
    if self.target == "model":
      return "inference" if self.mode == "forward" else "training step"
    return "forward" if self.mode == "forward" else "forward + backward"

  def describe(self) -> str:
    """Returns the setting in one line, for headings."""
    compiler = "XLA" if self.jit else "no XLA"
    name = self.target if self.model_id is None else f"ResNet-{self.model_id}"
    window = f"{self.num_heads} heads, window {self.kernel_size}"
    if self.dilation_rate > 1:
      window += f", dilation {self.dilation_rate}"
    if self.border != "zero":
      window += f", border {self.border}"
    return (
      f"{name}, {self.work}, batch {self.batch_size}, {self.size}, {self.dtype}, {compiler}; "
      f"{window}"
    )


def case_groups(
  candidates: Sequence[str],
  modes: Sequence[str],
  batch_sizes: Sequence[int],
  shapes: Sequence[tuple[int, int, int]],
  dtypes: Sequence[str],
  jit: Sequence[bool],
  **common: Any,
) -> list[list[Case]]:
  """Returns a group of cases for each combination of settings.

  Args:
    candidates: names of the candidates in each group.
    modes: some of `MODES`.
    batch_sizes: values of B.
    shapes: values of (H, W, C).
    dtypes: some of `DTYPES`.
    jit: True for XLA, False for none, or both.
    **common: the other attributes of `Case`.
  """
  return [
    [
      Case(
        candidate=candidate,
        mode=mode,
        batch_size=batch_size,
        shape=shape,
        dtype=dtype,
        jit=compiled,
        **common,
      )
      for candidate in candidates
    ]
    for mode, dtype, compiled, batch_size, shape in itertools.product(
      modes, dtypes, jit, batch_sizes, shapes
    )
  ]
