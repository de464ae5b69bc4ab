"""Full disks and read-only directories while a checkpoint is written."""

import os
import resource
import subprocess
import sys
import textwrap

import pytest
import tensorflow as tf

from sasa_tf.training.resilience import checkpoints

# Saves checkpoints of 4 MB like a training run.
SAVES = """
  import sys
  import orbit
  import tensorflow as tf
  from sasa_tf.errors import UserError
  from sasa_tf.training.resilience import checkpoints
  from sasa_tf.training.resilience.controller import Controller
  from sasa_tf.training.resilience.preemption import StopRequest

  directory, asynchronous, failure = sys.argv[1], sys.argv[2] == "async", sys.argv[3]

  class Trainer(orbit.StandardTrainer):
    def __init__(self):
      self.step = tf.Variable(0, dtype=tf.int64)
      self.weights = tf.Variable(tf.random.normal([1 << 20]))
      super().__init__(tf.data.Dataset.from_tensors(0).repeat())

    def train_step(self, iterator):
      next(iterator)
      self.step.assign_add(1)

    def train_loop_end(self):
      if int(self.step) == 4:
        manager.sync()
        exec(failure)
      return {}

  trainer = Trainer()
  checkpoints.repair(directory)
  manager = tf.train.CheckpointManager(
    tf.train.Checkpoint(step=trainer.step, weights=trainer.weights), directory, 5,
    step_counter=trainer.step, checkpoint_interval=2,
  )
  controller = Controller(
    global_step=trainer.step, trainer=trainer, steps_per_loop=1, checkpoint_manager=manager,
    enable_async_checkpointing=asynchronous, stop=StopRequest(),
  )
  try:
    controller.train(10)
  except UserError as error:
    print(f"error: {error}")
    sys.exit(2)
"""


def save_until_failure(directory, asynchronous, failure):
  """Returns the exit status and the output; executes the code `failure` after four steps."""
  mode = "async" if asynchronous else "sync"
  done = subprocess.run(
    [sys.executable, "-c", textwrap.dedent(SAVES), str(directory), mode, failure],
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
    timeout=300,
  )
  return done.returncode, done.stdout


def assert_reported_and_recoverable(status, printed, directory, step):
  assert status == 2, printed
  assert "cannot be written" in printed
  assert f"The latest valid checkpoint is {directory}/ckpt-{step}." in printed
  assert "Traceback" not in printed
  last = checkpoints.latest_valid(str(directory))
  assert checkpoints.step_of(last) == step
  checkpoints.repair(str(directory))
  assert tf.train.latest_checkpoint(str(directory)) == last
  assert not [name for name in os.listdir(directory) if "temp" in name]


@pytest.mark.parametrize(
  "asynchronous",
  [True, pytest.param(False, marks=pytest.mark.slow)],
  ids=["asynchronous", "synchronous"],
)
def test_file_size_limit(asynchronous, tmp_path):
  """Like a quota: the process has a limit on the size of a file."""
  limit = (
    "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
    "resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, resource.RLIM_INFINITY))"
  )
  assert resource.getrlimit(resource.RLIMIT_FSIZE)[1] == resource.RLIM_INFINITY
  status, printed = save_until_failure(tmp_path, asynchronous, limit)
  assert_reported_and_recoverable(status, printed, tmp_path, step=3)


@pytest.fixture
def small_disk(tmp_path):
  """A file system of 20 MB in memory."""
  done = subprocess.run(
    ["mount", "-t", "tmpfs", "-o", "size=20m", "tmpfs", tmp_path], capture_output=True, text=True
  )
  if done.returncode:
    pytest.skip(f"cannot mount a file system: {done.stderr.strip()}")
  yield tmp_path
  subprocess.run(["umount", "-l", tmp_path], check=True)


def test_full_disk(small_disk):
  fill = (
    "import os; stat = os.statvfs(directory); "
    "open(directory + '/ckpt-filler', 'wb').write(bytes((stat.f_bavail - 256) * stat.f_bsize))"
  )
  status, printed = save_until_failure(small_disk, True, fill)
  assert_reported_and_recoverable(status, printed, small_disk, step=3)


@pytest.mark.slow
def test_disk_becomes_read_only(small_disk):
  status, printed = save_until_failure(
    small_disk,
    False,
    "import subprocess; subprocess.run(['mount', '-o', 'remount,ro', directory], check=True)",
  )
  subprocess.run(["mount", "-o", "remount,rw", small_disk], check=True)
  assert_reported_and_recoverable(status, printed, small_disk, step=3)
