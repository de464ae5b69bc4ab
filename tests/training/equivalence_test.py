"""Training does not depend on the number of replicas, nor on XLA."""

import os
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from sasa_tf.native import library
from tests.training.replica_runs import BATCH, STEPS

# The suffix /local: batch norm per replica, which XLA compiles on several replicas also if these
# reduce between two programs.
QUICK = (
  "tiny/sgd+ema/1/plain",
  "tiny/sgd+ema/4/plain",
  "tiny/sgd+ema/1/xla",
  "tiny/sgd+ema/2/plain/local",
  "tiny/sgd+ema/2/xla/local",
)
SLOW = (
  "retinanet/sgd/1/plain",
  "retinanet/sgd/2/plain",
  "retinanet/sgd/4/plain",
  "retinanet/sgd/1/xla",
  "retinanet/sgd/2/plain/local",
  "retinanet/sgd/2/xla/local",
  "digits/sgd/1/plain",
  "digits/sgd/2/plain",
  "digits/sgd/4/plain",
  "digits/sgd/2/plain/local",
  "digits/sgd/2/xla/local",
  "tiny/adamw/1/plain",
  "tiny/adamw/2/plain",
  "tiny/clip/1/plain",
  "tiny/clip/2/plain",
  "tiny/lars/2/plain/local",
  "tiny/lars/2/xla/local",
  "tiny/new/2/plain/local",
  "tiny/new/2/xla/local",
  "tiny/sgd+float16/2/plain/local",
  "tiny/sgd+float16/2/xla/local",
  "tiny/sgd+bfloat16/2/plain/local",
  "tiny/sgd+bfloat16/2/xla/local",
)

# The all-reduce within the program, for which the library must have been built.
QUICK_PROGRAM = ("tiny/sgd+ema/2/program", "tiny/sgd+ema/4/program", "tiny/sgd+ema/2/program/local")
SLOW_PROGRAM = (
  "retinanet/sgd/2/program",
  "retinanet/sgd/2/program/local",
  "digits/sgd/2/program",
  "tiny/adamw/2/program",
  "tiny/clip/2/program",
  "tiny/lars/2/program/local",
  "tiny/new/2/program/local",
  "tiny/sgd+float16/2/program/local",
  "tiny/sgd+bfloat16/2/program/local",
)
BUILT = bool(library.load().platforms)
needs_library = pytest.mark.skipif(not BUILT, reason="the library has not been built")


def train(cases, directory, **environment):
  """Returns {case: {name: array}} of all cases, trained in one process."""
  output = directory / "runs.npz"
  done = subprocess.run(
    [sys.executable, "-m", "tests.training.replica_runs", output, *cases],
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
    env={**os.environ, **environment, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
  )
  assert done.returncode == 0, done.stdout[-5000:]
  runs = {case: {} for case in cases}
  with np.load(output) as arrays:
    for key in arrays:
      case, name = key.split("|")
      runs[case][name] = arrays[key]
  return runs


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
  return train(QUICK + (QUICK_PROGRAM if BUILT else ()), tmp_path_factory.mktemp("quick"))


@pytest.fixture(scope="module")
def slow(tmp_path_factory):
  return train(SLOW + (SLOW_PROGRAM if BUILT else ()), tmp_path_factory.mktemp("slow"))


def weights(run):
  return {name: value for name, value in run.items() if name.startswith("weight")}


def assert_same_losses(run, expected, tolerance=1e-5):
  """Compares only losses, for optimizers that divide by gradients that are 0 up to rounding."""
  np.testing.assert_allclose(
    run["training_loss"], expected["training_loss"], rtol=0, atol=tolerance
  )


def assert_same_losses_by_xla(run, expected):
  """Compares losses of full models, compiled and not."""
  losses, others = run["training_loss"], expected["training_loss"]
  np.testing.assert_allclose(losses[:5], others[:5], rtol=0, atol=1e-5)
  # XLA rounds differently, so that later the sign of a ReLU's input changes.
  np.testing.assert_allclose(losses, others, rtol=0, atol=1e-3)


def assert_equal(run, expected, tolerance=1e-5):
  """Compares the losses of every step, and weights and moving averages of all replicas."""
  assert np.ptp(expected["training_loss"]) > 0.01  # the model learns
  assert list(run["step"]) == [STEPS, STEPS]
  assert_same_losses(run, expected, tolerance)
  assert set(weights(run)) == set(weights(expected))
  for name, value in weights(run).items():
    desired = np.broadcast_to(expected[name], value.shape)  # [replicas, ...]
    np.testing.assert_allclose(value, desired, rtol=0, atol=tolerance, err_msg=name)


def test_classification_on_one_and_four_replicas(quick):
  one, four = quick["tiny/sgd+ema/1/plain"], quick["tiny/sgd+ema/4/plain"]
  assert_equal(four, one)
  np.testing.assert_array_equal(four["accuracy"], one["accuracy"])


def test_synchronized_batch_norm_averages_over_the_global_batch(quick):
  one, four = quick["tiny/sgd+ema/1/plain"], quick["tiny/sgd+ema/4/plain"]
  averages = [name for name in weights(one) if "moving_" in name and "average" not in name]
  assert len(averages) == 4
  for name in averages:
    assert np.abs(four[name]).max() > 0.01 and np.ptp(four[name], axis=0).max() == 0
    np.testing.assert_allclose(four[name][0], one[name][0], rtol=0, atol=1e-5)


def test_local_batch_norm_differs(quick):
  """The two tests above would fail with local batch norm."""
  local, one = quick["tiny/sgd+ema/2/plain/local"], quick["tiny/sgd+ema/1/plain"]
  assert np.abs(local["training_loss"] - one["training_loss"]).max() > 1e-3


def test_xla_on_one_replica(quick):
  assert_equal(quick["tiny/sgd+ema/1/xla"], quick["tiny/sgd+ema/1/plain"])


def test_xla_on_several_replicas(quick):
  assert_equal(quick["tiny/sgd+ema/2/xla/local"], quick["tiny/sgd+ema/2/plain/local"])


@needs_library
@pytest.mark.parametrize("replicas", [2, 4])
def test_all_reduce_within_the_program(quick, replicas):
  """With synchronized batch norm, whose all-reduces and their gradients are in the program too."""
  run, one = quick[f"tiny/sgd+ema/{replicas}/program"], quick["tiny/sgd+ema/1/plain"]
  assert_equal(run, one)
  assert max(np.ptp(copies, axis=0).max() for copies in weights(run).values()) == 0
  np.testing.assert_array_equal(run["accuracy"], one["accuracy"])


@needs_library
@pytest.mark.gpu
@pytest.mark.skipif(len(tf.config.list_physical_devices("GPU")) < 2, reason="needs two GPUs")
def test_all_reduce_within_the_program_on_gpus(tmp_path):
  one, two = "tiny/sgd+ema/1/xla", "tiny/sgd+ema/2/program"
  full_float32 = {"NVIDIA_TF32_OVERRIDE": "0"}
  runs = train([one, two], tmp_path, REPLICA_DEVICE_TYPE="GPU", **full_float32)
  assert_equal(runs[two], runs[one], 1e-4)


@needs_library
def test_all_reduce_within_the_program_with_local_batch_norm(quick):
  assert_equal(quick["tiny/sgd+ema/2/program/local"], quick["tiny/sgd+ema/2/plain/local"])


@pytest.mark.slow
@pytest.mark.parametrize("task", ["retinanet", "digits"])
@pytest.mark.parametrize("replicas", [2, 4])
def test_full_models_on_several_replicas(slow, task, replicas):
  assert BATCH % replicas == 0
  assert_equal(slow[f"{task}/sgd/{replicas}/plain"], slow[f"{task}/sgd/1/plain"])


@pytest.mark.slow
@pytest.mark.parametrize("task", ["retinanet", "digits"])
def test_xla_of_full_models(slow, task):
  # XLA sums in a different order.
  assert_same_losses(slow[f"{task}/sgd/2/xla/local"], slow[f"{task}/sgd/2/plain/local"], 1e-4)


@needs_library
@pytest.mark.slow
@pytest.mark.parametrize("task", ["retinanet", "digits"])
def test_all_reduce_within_the_program_of_full_models(slow, task):
  assert_same_losses_by_xla(slow[f"{task}/sgd/2/program"], slow[f"{task}/sgd/1/plain"])


@needs_library
@pytest.mark.slow
def test_all_reduce_within_the_program_of_detection_with_local_batch_norm(slow):
  """XLA compiles both, and rounds alike."""
  assert_equal(slow["retinanet/sgd/2/program/local"], slow["retinanet/sgd/2/xla/local"])


@pytest.mark.slow
def test_xla_of_detection_on_one_replica(slow):
  assert_same_losses_by_xla(slow["retinanet/sgd/1/xla"], slow["retinanet/sgd/1/plain"])


@pytest.mark.slow
def test_gradients_are_clipped_after_the_all_reduce(slow):
  assert_equal(slow["tiny/clip/2/plain"], slow["tiny/clip/1/plain"])
  assert_same_losses(slow["tiny/adamw/2/plain"], slow["tiny/adamw/1/plain"])


@needs_library
@pytest.mark.slow
def test_gradients_are_clipped_after_the_all_reduce_within_the_program(slow):
  assert_equal(slow["tiny/clip/2/program"], slow["tiny/clip/1/plain"])
  assert_same_losses(slow["tiny/adamw/2/program"], slow["tiny/adamw/1/plain"])


TOLERANCES = [("lars", 1e-5), ("new", 1e-5), ("sgd+float16", 1e-2), ("sgd+bfloat16", 5e-2)]


@pytest.mark.slow
@pytest.mark.parametrize(("optimizer", "tolerance"), TOLERANCES)
def test_xla_with_all_optimizers(slow, optimizer, tolerance):
  assert_same_losses(
    slow[f"tiny/{optimizer}/2/xla/local"], slow[f"tiny/{optimizer}/2/plain/local"], tolerance
  )


@needs_library
@pytest.mark.slow
@pytest.mark.parametrize(("optimizer", "tolerance"), TOLERANCES)
def test_all_reduce_within_the_program_with_all_optimizers(slow, optimizer, tolerance):
  assert_same_losses(
    slow[f"tiny/{optimizer}/2/program/local"], slow[f"tiny/{optimizer}/2/plain/local"], tolerance
  )
