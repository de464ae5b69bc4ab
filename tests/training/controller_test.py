"""Stop requests during training and evaluation."""

import os
import signal

import orbit
import pytest
import tensorflow as tf
from official.modeling import optimization

from sasa_tf.errors import PreemptedError, UserError
from sasa_tf.training.resilience.controller import Controller
from sasa_tf.training.resilience.preemption import StopRequest


class Averaging(optimization.ExponentialMovingAverage):
  """Counts how often the averaged weights and the trained ones are swapped."""

  def __init__(self):
    self.swaps = 0

  def swap_weights(self):
    self.swaps += 1


class Trainer(orbit.StandardTrainer, orbit.StandardEvaluator):
  """Counts steps, and sends SIGTERM to this process at one of them."""

  def __init__(self, sigterm_in):
    self.step = tf.Variable(0, dtype=tf.int64)
    self.evaluated = 0
    self.optimizer = Averaging()
    self._sigterm_in = sigterm_in
    steps = tf.data.Dataset.from_tensors(0).repeat(20)
    orbit.StandardTrainer.__init__(self, steps)
    orbit.StandardEvaluator.__init__(self, steps)

  def train_step(self, iterator):
    next(iterator)
    self.step.assign_add(1)

  def train_loop_end(self):
    self._send_sigterm_if("training", int(self.step) == 4)
    return {}

  def eval_begin(self):
    self.optimizer.swap_weights()

  def eval_step(self, iterator):
    return next(iterator)

  def eval_reduce(self, state, outputs):
    self.evaluated += 1
    self._send_sigterm_if("evaluation", self.evaluated == 3)
    return state

  def eval_end(self, *outputs):
    self.optimizer.swap_weights()
    return {}

  def _send_sigterm_if(self, where, condition):
    if condition and where == self._sigterm_in:
      os.kill(os.getpid(), signal.SIGTERM)


def run(directory, sigterm_in, stop, asynchronous=True):
  trainer = Trainer(sigterm_in)
  manager = tf.train.CheckpointManager(
    tf.train.Checkpoint(step=trainer.step),
    str(directory),
    5,
    step_counter=trainer.step,
    checkpoint_interval=100,
  )
  controller = Controller(
    global_step=trainer.step,
    trainer=trainer,
    evaluator=trainer,
    steps_per_loop=2,
    checkpoint_manager=manager,
    enable_async_checkpointing=asynchronous,
    stop=stop,
  )
  with stop.on_sigterm():
    controller.train_and_evaluate(train_steps=12, eval_steps=-1, eval_interval=6)
  return trainer


@pytest.mark.parametrize("asynchronous", [True, False])
@pytest.mark.parametrize(("where", "step"), [("training", 4), ("evaluation", 6)])
def test_sigterm_saves_and_raises(where, step, asynchronous, tmp_path):
  before = signal.getsignal(signal.SIGTERM)
  with pytest.raises(PreemptedError, match=f"ended by SIGTERM after step {step}, which is saved"):
    run(tmp_path, where, StopRequest(), asynchronous)
  assert tf.train.latest_checkpoint(str(tmp_path)) == f"{tmp_path}/ckpt-{step}"
  assert signal.getsignal(signal.SIGTERM) == before


def test_trained_weights_are_restored_before_saving(tmp_path, monkeypatch):
  state_at_save = []
  save = Controller._save_and_raise

  def recording(self):
    state_at_save.append((self.trainer.evaluated, self.trainer.optimizer.swaps))
    save(self)

  monkeypatch.setattr(Controller, "_save_and_raise", recording)
  with pytest.raises(PreemptedError):
    run(tmp_path, "evaluation", StopRequest())
  # The evaluation stopped after 3 steps of 20, and the weights were swapped back.
  assert state_at_save == [(3, 2)]


def test_resumed_run_completes(tmp_path):
  with pytest.raises(PreemptedError):
    run(tmp_path, "training", StopRequest())
  trainer = run(tmp_path, "nowhere", StopRequest())
  assert int(trainer.step) == 12 and trainer.optimizer.swaps == 4


def test_foreign_checkpoint_is_not_restored(tmp_path):
  state = tf.train.Checkpoint(other=tf.Variable(0))
  tf.train.CheckpointManager(state, str(tmp_path), 5).save(6)
  with pytest.raises(UserError, match=f"{tmp_path}/ckpt-6 is not a checkpoint of this training"):
    run(tmp_path, "nowhere", StopRequest())


def test_second_sigterm_terminates_the_process():
  stop = StopRequest()
  with stop.on_sigterm():
    os.kill(os.getpid(), signal.SIGTERM)
    assert stop.received
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
