"""Every private API of Orbit still does what `sasa_tf.compat.orbit` says."""

import orbit
import tensorflow as tf

from sasa_tf.compat.orbit import HookedController


class Trainer(orbit.StandardTrainer):
  def __init__(self):
    self.step = tf.Variable(0, dtype=tf.int64)
    super().__init__(tf.data.Dataset.from_tensors(0).repeat())

  def train_step(self, iterator):
    next(iterator)
    self.step.assign_add(1)


class RecordingController(HookedController):
  """Records the calls of the hooks, and what they return."""

  def __init__(self, *args, **kwargs):
    self.calls = []
    super().__init__(*args, **kwargs)

  def train_n_steps(self, num_steps):
    self.calls.append(("train_n_steps", num_steps))
    super().train_n_steps(num_steps)

  def maybe_save_checkpoint(self, check_interval=True):
    saved = super().maybe_save_checkpoint(check_interval)
    self.calls.append(("maybe_save_checkpoint", saved))
    return saved

  def wait_for_checkpoint(self):
    self.calls.append(("wait_for_checkpoint",))
    super().wait_for_checkpoint()


def test_hooks_are_called_by_the_training_loop(tmp_path):
  trainer = Trainer()
  manager = tf.train.CheckpointManager(
    tf.train.Checkpoint(step=trainer.step),
    str(tmp_path),
    3,
    step_counter=trainer.step,
    checkpoint_interval=4,
  )
  controller = RecordingController(
    global_step=trainer.step, trainer=trainer, steps_per_loop=2, checkpoint_manager=manager
  )
  controller.train(6)
  assert int(trainer.step) == 6
  loop = ("train_n_steps", 2)
  assert controller.calls == [
    *(loop, ("maybe_save_checkpoint", True)),  # the first is always saved
    *(loop, ("maybe_save_checkpoint", False)),
    *(loop, ("maybe_save_checkpoint", True)),
    *(("maybe_save_checkpoint", False), ("wait_for_checkpoint",)),
  ]
