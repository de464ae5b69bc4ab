"""One small forward and backward pass of each implementation of local attention."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import numpy as np
import tensorflow as tf

from sasa_tf import ops
from sasa_tf.diagnostics.findings import Finding

_SHAPE = (2, 14, 14, 8, 16)  # B, H, W, N, D
_KERNEL = 7
_REPEATS = 10
_TOLERANCE = 1e-3  # relative to the largest value; float32

Step = Callable[..., tuple[tf.Tensor, list[tf.Tensor]]]


def check_kernels() -> Iterator[Finding]:
  """Yields whether the compiled kernels of each platform can be used, and why not."""
  status = ops.kernel_status()
  for platform in ("CPU", "CUDA"):
    reason = status.reasons.get(platform)
    yield Finding(platform, reason or "usable", "note" if reason else "ok")
  yield Finding("library", status.library_path)


def check_implementations() -> Iterator[Finding]:
  """Yields the time of each implementation, and its difference from the reference."""
  random = np.random.default_rng(0)
  inputs = [tf.constant(random.normal(size=_SHAPE), tf.float32) for _ in range(3)]
  tables = [_KERNEL, _SHAPE[-1] // 2]
  inputs += [tf.constant(random.normal(size=tables), tf.float32) for _ in range(2)]
  expected = None
  for name in ops.available_implementations():
    try:
      results, seconds = _measure(_step(name), inputs)
    except Exception as error:  # whatever it is, it is what this check reports
      yield Finding(name, f"{type(error).__name__}: {str(error).splitlines()[0]}", "problem")
      continue
    expected = expected or results
    difference = max(map(_relative_difference, results, expected))
    text = f"{1000 * seconds:6.2f} ms, largest relative difference {difference:.1e}"
    yield Finding(name, text, "ok" if difference < _TOLERANCE else "problem")


def description() -> str:
  """Returns what `check_implementations` measures."""
  batch, height, width, heads, depth = _SHAPE
  return (
    f"{batch} images of {height} x {width} pixels, {heads} heads of width {depth}, windows of "
    f"{_KERNEL} x {_KERNEL}, forward and backward, compiled by XLA"
  )


def _step(name: str) -> Step:
  @tf.function(jit_compile=True)
  def step(*inputs: tf.Tensor) -> tuple[tf.Tensor, list[tf.Tensor]]:
    with tf.GradientTape() as tape:
      tape.watch(inputs)
      output = ops.local_attention_2d(*inputs, kernel_size=_KERNEL, implementation=name)
      loss = tf.reduce_sum(output**2)
    return output, tape.gradient(loss, inputs)

  return step


def _relative_difference(result: np.ndarray, expected: np.ndarray) -> float:
  return float(np.abs(result - expected).max() / np.abs(expected).max())


def _measure(step: Step, inputs: list[tf.Tensor]) -> tuple[list[np.ndarray], float]:
  """Returns output and gradients, and the time of the fastest step after the first."""
  output, gradients = step(*inputs)
  results = [tensor.numpy() for tensor in (output, *gradients)]
  times = []
  for _ in range(_REPEATS):
    start = time.perf_counter()
    step(*inputs)[0].numpy()
    times.append(time.perf_counter() - start)
  return results, min(times)
