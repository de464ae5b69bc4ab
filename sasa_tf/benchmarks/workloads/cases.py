"""What is measured: one case a row, cases that belong side by side in one group."""

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
  """One contestant under one setting: all that its numbers depend on beside the machine.

  Attributes:
    target: one of `TARGETS`.
    contestant: its name, see `sasa_tf.benchmarks.workloads.candidates`.
    mode: "forward", or "forward_backward" with the gradients of all inputs; of a model a whole
      training step.
    batch_size: B.
    shape: (H, W, C) of the input of the operation or layer; (size, size, 3) of a model's images.
    dtype: of the computation; a layer's and a model's variables are float32.
    jit: whether XLA compiles the step.
    num_heads: N.
    kernel_size: of the attention's window.
    dilation_rate: of the attention's window.
    border: "zero" or "mask".
    model_id: of a model, else None.
  """

  target: str
  contestant: str
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
    """Undoes `dataclasses.asdict`, after JSON too."""
    return cls(**values | {"shape": tuple(values["shape"])})

  @property
  def group(self) -> Case:
    """What it shares with the contestants beside it."""
    return dataclasses.replace(self, contestant="")

  @property
  def size(self) -> str:
    """H x W x C without blanks, as the flags write it."""
    return "x".join(map(str, self.shape))

  @property
  def work(self) -> str:
    """The mode in words."""
    if self.target == "model":
      return "inference" if self.mode == "forward" else "training step"
    return "forward" if self.mode == "forward" else "forward + backward"

  def describe(self) -> str:
    """Returns the group in a line, for headings."""
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
  contestants: Sequence[str],
  modes: Sequence[str],
  batch_sizes: Sequence[int],
  shapes: Sequence[tuple[int, int, int]],
  dtypes: Sequence[str],
  jit: Sequence[bool],
  **common: Any,
) -> list[list[Case]]:
  """Returns every combination, the contestants of each side by side.

  Args:
    contestants: names.
    modes: of `MODES`.
    batch_sizes: values of B.
    shapes: values of (H, W, C).
    dtypes: of `DTYPES`.
    jit: with XLA, without, or both.
    **common: the other attributes of `Case`.
  """
  return [
    [
      Case(
        contestant=contestant,
        mode=mode,
        batch_size=batch_size,
        shape=shape,
        dtype=dtype,
        jit=compiled,
        **common,
      )
      for contestant in contestants
    ]
    for mode, dtype, compiled, batch_size, shape in itertools.product(
      modes, dtypes, jit, batch_sizes, shapes
    )
  ]
