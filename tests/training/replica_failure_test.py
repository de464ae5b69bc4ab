"""What a failed group of replicas raises."""

import contextlib
import subprocess
import sys

import pytest
import tensorflow as tf

from sasa_tf.errors import WorkerLostError
from sasa_tf.training.step.replica_failure import check_group, translate_group_failure
from tests.collectives.replica_threads import needs_library
from tests.training import tiny_run


class Group:
  """A `ReplicaGroup` without replicas."""

  def __init__(self, failure=""):
    self._failure = failure

  def failure(self):
    return self._failure

  @contextlib.contextmanager
  def aborted_on_error(self):
    try:
      yield
    except BaseException:
      self._failure = self._failure or "the step failed"
      raise


def internal_error(message):
  return tf.errors.InternalError(None, None, message)


def test_without_failure():
  group = Group()
  check_group(group)
  with translate_group_failure(group):
    pass


def test_failure_of_the_group():
  group = Group("NCCL: unhandled system error")
  message = r"NCCL: unhandled system error.*rerun"
  with pytest.raises(WorkerLostError, match=message):
    check_group(group)
  with pytest.raises(WorkerLostError, match=message) as raised, translate_group_failure(group):
    raise internal_error("Op: NCCL: unhandled system error [[node]]")
  assert raised.value.exit_status == 69


@pytest.mark.parametrize(
  "error", [internal_error("invalid record"), ValueError("a bug"), KeyboardInterrupt()]
)
def test_other_errors_abort_the_group_and_are_not_changed(error):
  group = Group()
  with pytest.raises(type(error)) as raised, translate_group_failure(group):
    raise error
  assert raised.value is error
  assert group.failure() == "the step failed"


def test_error_of_one_replica_that_made_others_wait_too_long():
  group = Group("an all-reduce did not complete within 50 s")
  with (
    pytest.raises(tf.errors.InternalError, match="invalid record"),
    translate_group_failure(group),
  ):
    raise internal_error("invalid record")


@needs_library
@pytest.mark.slow
def test_failed_training_is_resumed_from_the_last_checkpoint(tmp_path):
  data, model_dir = tiny_run.write_data(tmp_path / "data"), tmp_path / "run"
  arguments = [
    f"--experiment={tiny_run.EXPERIMENT}",
    "--mode=train",
    f"--model_dir={model_dir}",
    "--num_logical_cpus=2",
    "--all_reduce=in_program",
    "--params_override="
    + tiny_run.overrides(data, steps=8, loop=2, interval=4, **{"runtime.enable_xla": "true"}),
  ]

  def run(module, *more):
    return subprocess.run(
      [sys.executable, "-m", module, *more, *arguments],
      stdout=subprocess.PIPE,
      stderr=subprocess.STDOUT,
      text=True,
    )

  failed = run("tests.training.failing_replicas_program", "6")
  assert failed.returncode == WorkerLostError.exit_status, failed.stdout[-3000:]
  assert "NCCL: a cable was pulled out. To resume" in failed.stdout
  assert "Traceback" not in failed.stdout
  assert tiny_run.steps_of(model_dir)[-1] == 6
  resumed = run("sasa_tf.bin.train")
  assert resumed.returncode == 0, resumed.stdout[-3000:]
  assert tiny_run.steps_of(model_dir)[-1] == 8
