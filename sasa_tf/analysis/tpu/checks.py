"""What is compiled for a TPU to see that it can be: layers, a whole model, its training step."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import tensorflow as tf
import tf_keras

from sasa_tf.analysis.tpu import compiler
from sasa_tf.benchmarks.workloads import model
from sasa_tf.benchmarks.workloads.cases import Case
from sasa_tf.tf_keras import LocalSelfAttention2D, SASAResNet

IMPLEMENTATION = "blocked"  # the one for TPUs; "auto" may find kernels of this machine
# Each with the images at a time that it is compiled for by default.
BATCH_SIZES = {"layer": 32, "model": 32, "step": 128}
TARGETS = tuple(BATCH_SIZES)
STEMS = ("conv", "attention")
POLICIES = {"bfloat16": "mixed_bfloat16", "float32": "float32"}  # of the computation
# (H and W, C) of the attention layers in ResNet's four groups, at 224 pixels.
STAGES = ((56, 64), (28, 128), (14, 256), (7, 512))
IMAGE_SIZE = 224


@dataclasses.dataclass(frozen=True)
class Check:
  """One program to compile.

  Attributes:
    name: what it is.
    make: returns a function of tensors, which may use variables, and the specs of its arguments.
  """

  name: str
  make: Callable[[], tuple[Callable[..., Any], list[tf.TensorSpec]]]


@dataclasses.dataclass(frozen=True)
class Result:
  """What came of a check.

  Attributes:
    name: of the check.
    seconds: that tracing and compiling took.
    memory: of the program, None where there is none.
    error: what the compiler said against it, None where it compiled.
  """

  name: str
  seconds: float
  memory: compiler.Memory | None
  error: str | None

  @property
  def passed(self) -> bool:
    """Whether a TPU can run it."""
    return self.memory is not None and self.memory.fits


def layer_check(size: int, channels: int, batch_size: int, dtype: str) -> Check:
  """Forward and backward pass of the layer as the models use it: 8 heads, window 7.

  Args:
    size: H and W.
    channels: C and the filters.
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
  """Forward pass of ResNet-50 with attention in all groups, at 224 pixels.

  Args:
    stem: "conv" or "attention".
    batch_size: B.
    dtype: of the computation, key of `POLICIES`.
  """

  def make():
    before = tf_keras.mixed_precision.global_policy()
    tf_keras.mixed_precision.set_global_policy(POLICIES[dtype])
    try:
      model = SASAResNet(
        50, stem, implementation=IMPLEMENTATION, input_shape=(IMAGE_SIZE, IMAGE_SIZE, 3)
      )
    finally:
      tf_keras.mixed_precision.set_global_policy(before)
    images = tf.TensorSpec([batch_size, IMAGE_SIZE, IMAGE_SIZE, 3])
    return lambda images: model(images, training=False)["5"], [images]

  name = f"SASAResNet-50, {stem} stem, forward, batch {batch_size}, {dtype}"
  return Check(name, make)


def step_check(stem: str, batch_size: int, dtype: str) -> Check:
  """A whole training step of the ResNet-50 classifier: loss, gradients and momentum update.

  Args:
    stem: "conv" or "attention".
    batch_size: B, of one core.
    dtype: of the computation, key of `POLICIES`.
  """

  def make():
    shape = (IMAGE_SIZE, IMAGE_SIZE, 3)
    case = Case("model", stem, "forward_backward", batch_size, shape, dtype, True, model_id=50)
    workload = model.network(case, {"stem": stem}, IMPLEMENTATION)

    def step(images: tf.Tensor) -> list[tf.Tensor]:
      return workload.step([images])

    return step, [tf.TensorSpec([batch_size, *shape])]

  name = f"SASAResNet-50, {stem} stem, training step, batch {batch_size}, {dtype}"
  return Check(name, make)


def all_checks(
  targets: Sequence[str], dtypes: Sequence[str], batch_size: int | None = None
) -> list[Check]:
  """Returns every check of the targets and dtypes.

  Args:
    targets: of `TARGETS`. The training steps are of mixed bfloat16, as TPUs train, whatever
      `dtypes`.
    dtypes: keys of `POLICIES`.
    batch_size: images at a time; those of `BATCH_SIZES` by default.
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
  """Compiles one check after the other.

  Raises:
    UserError: the compiler is not installed.
  """
  compiler.require_compiler()
  for check in checks:
    start = time.perf_counter()
    memory = error = None
    try:
      memory = compiler.compile_for_tpu(*check.make())
    except compiler.CompileError as refusal:
      error = str(refusal)
    yield Result(check.name, time.perf_counter() - start, memory, error)
