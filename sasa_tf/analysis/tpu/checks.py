"""Programs to compile for a TPU: layers, a model and its training step."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import tensorflow as tf
import tf_keras

from sasa_tf.analysis.tpu import compiler
from sasa_tf.benchmarks.workloads import model as model_workloads
from sasa_tf.benchmarks.workloads.cases import Case
from sasa_tf.tf_keras import LocalSelfAttention2D, SASAResNet

IMPLEMENTATION = "blocked"  # "auto" could choose kernels of this machine
# Target -> default batch size.
BATCH_SIZES = {"layer": 32, "model": 32, "step": 128}
TARGETS = tuple(BATCH_SIZES)
STEMS = ("conv", "attention")
POLICIES = {"bfloat16": "mixed_bfloat16", "float32": "float32"}  # of the computation
# (H and W, C) of the attention layers in ResNet's four stages, at 224 pixels.
STAGES = ((56, 64), (28, 128), (14, 256), (7, 512))
IMAGE_SIZE = 224


@dataclasses.dataclass(frozen=True)
class Check:
  """One program to compile.

  Attributes:
    name: description of the program.
    make: returns a function that takes tensors, which may use variables, and its argument specs.
  """

  name: str
  make: Callable[[], tuple[Callable[..., Any], list[tf.TensorSpec]]]


@dataclasses.dataclass(frozen=True)
class Result:
  """The result of a check.

  Attributes:
    name: of the check.
    seconds: time to trace and compile.
    memory: of the program; None if it does not compile.
    error: message of the compiler; None if it compiles.
  """

  name: str
  seconds: float
  memory: compiler.Memory | None
  error: str | None

  @property
  def passed(self) -> bool:
    """Whether a TPU can run the program."""
    return self.memory is not None and self.memory.fits


def layer_check(size: int, channels: int, batch_size: int, dtype: str) -> Check:
  """Returns a check of the layer's forward and backward pass, with 8 heads and window 7.

  Args:
    size: H and W.
    channels: C, of inputs and outputs.
    batch_size: B.
    dtype: of the computation, key of `POLICIES`.
  """
  shape = [batch_size, size, size, channels]

  def make():
    layer = LocalSelfAttention2D(
      channels, kernel_size=7, num_heads=8, implementation=IMPLEMENTATION, dtype=POLICIES[dtype]
    )
    layer.build(shape)

    def step(inputs: tf.Tensor, upstream: tf.Tensor) -> Any:
      with tf.GradientTape() as tape:
        tape.watch(inputs)
        outputs = layer(inputs)
      return outputs, tape.gradient(outputs, [inputs, *layer.trainable_variables], upstream)

    return step, [tf.TensorSpec(shape, dtype)] * 2

  name = f"layer {size}x{size}x{channels}, forward + backward, batch {batch_size}, {dtype}"
  return Check(name, make)


def model_check(stem: str, batch_size: int, dtype: str) -> Check:
  """Returns a check of the forward pass of ResNet-50 with attention in all stages, at 224 pixels.

  Args:
    stem: "conv" or "attention".
    batch_size: B.
    dtype: of the computation, key of `POLICIES`.
  """

  def make():
    previous_policy = tf_keras.mixed_precision.global_policy()
    tf_keras.mixed_precision.set_global_policy(POLICIES[dtype])
    try:
      model = SASAResNet(
        50, stem, implementation=IMPLEMENTATION, input_shape=(IMAGE_SIZE, IMAGE_SIZE, 3)
      )
    finally:
      tf_keras.mixed_precision.set_global_policy(previous_policy)
    images = tf.TensorSpec([batch_size, IMAGE_SIZE, IMAGE_SIZE, 3])
    return lambda images: model(images, training=False)["5"], [images]

  name = f"SASAResNet-50, {stem} stem, forward, batch {batch_size}, {dtype}"
  return Check(name, make)


def step_check(stem: str, batch_size: int, dtype: str) -> Check:
  """Returns a check of the training step of ResNet-50: loss, gradients and momentum update.

  Args:
    stem: "conv" or "attention".
    batch_size: B on one core.
    dtype: of the computation, key of `POLICIES`.
  """

  def make():
    shape = (IMAGE_SIZE, IMAGE_SIZE, 3)
    case = Case("model", stem, "forward_backward", batch_size, shape, dtype, True, model_id=50)
    workload = model_workloads.network(case, {"stem": stem}, IMPLEMENTATION)

    def step(images: tf.Tensor) -> list[tf.Tensor]:
      return workload.step([images])

    return step, [tf.TensorSpec([batch_size, *shape])]

  name = f"SASAResNet-50, {stem} stem, training step, batch {batch_size}, {dtype}"
  return Check(name, make)


def all_checks(
  targets: Sequence[str], dtypes: Sequence[str], batch_size: int | None = None
) -> list[Check]:
  """Returns all checks of the targets and dtypes.

  Args:
    targets: some of `TARGETS`. The training steps are always in mixed bfloat16, which is usual on
      TPUs.
    dtypes: keys of `POLICIES`.
    batch_size: B; by default that of `BATCH_SIZES`.
  """
  sizes = {target: batch_size or size for target, size in BATCH_SIZES.items()}
  checks = []
  for dtype in dtypes:
    if "layer" in targets:
      checks += [layer_check(*stage, sizes["layer"], dtype) for stage in STAGES]
    if "model" in targets:
      checks += [model_check(stem, sizes["model"], dtype) for stem in STEMS]
  if "step" in targets:
    checks += [step_check(stem, sizes["step"], "bfloat16") for stem in STEMS]
  return checks


def run_checks(checks: Sequence[Check]) -> Iterator[Result]:
  """Compiles the programs of the checks one after the other.

  Raises:
    UserError: the compiler is not installed.
  """
  compiler.require_compiler()
  for check in checks:
    start = time.perf_counter()
    memory = error = None
    try:
      memory = compiler.compile_for_tpu(*check.make())
    except compiler.CompileError as compile_error:
      error = str(compile_error)
    yield Result(check.name, time.perf_counter() - start, memory, error)
