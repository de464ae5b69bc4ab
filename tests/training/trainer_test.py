"""The loop of training steps."""

import contextlib
import os
import queue
import subprocess
import sys

import pytest
import tensorflow as tf
import tf_keras
from official.core import exp_factory, train_utils

from sasa_tf import registry_imports  # noqa: F401
from sasa_tf.errors import WorkerLostError
from sasa_tf.native import library
from sasa_tf.tasks.image_classification import ImageClassificationTask
from sasa_tf.training import strategy
from sasa_tf.training.step.all_reduce_mode import Processes
from sasa_tf.training.trainer import Trainer
from tests.walks import modules_executed


class CountingTask(ImageClassificationTask):
  """Has a model of one layer, and counts how often its losses are traced."""

  traces = 0

  def build_model(self):
    layers = tf_keras.layers
    inputs = tf_keras.Input(self.task_config.model.input_size)
    return tf_keras.Model(inputs, layers.Dense(10)(layers.Flatten()(inputs)))

  def build_losses(self, *args, **kwargs):
    self.traces += 1
    return super().build_losses(*args, **kwargs)

  def build_inputs(self, params, input_context=None):
    images = tf.random.stateless_normal([8, *self.task_config.model.input_size], [1, 2])
    return tf.data.Dataset.from_tensors((images, tf.range(8))).repeat(6)


@pytest.fixture
def make_trainer():
  def make(xla):
    params = exp_factory.get_exp_config("sasa_resnet_digits")
    params.override({"runtime": {"enable_xla": xla}})
    task = CountingTask(params.task)
    with strategy.from_devices(["CPU:0"]).scope():
      optimizer = train_utils.create_optimizer(task, params)
      return Trainer(params, task, task.build_model(), optimizer, evaluate=False)

  return make


def test_compiled_step_takes_no_tensors_from_the_host(make_trainer):
  """TensorFlow would copy them to the device in each step, and wait for the previous step."""
  trainer = make_trainer(xla=True)
  step = tf.function(trainer.train_step).get_concrete_function(iter(trainer.train_dataset))
  others = [tensor for tensor, _ in step.graph.captures if tensor.dtype != tf.resource]
  assert not others  # only variables


@pytest.mark.skipif(not library.load().platforms, reason="the library has not been built")
def test_replicas_exchange_nothing_outside_of_their_programs():
  program = [sys.executable, "-m", "tests.training.step_graph_program"]
  environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
  done = subprocess.run(program, capture_output=True, text=True, env=environment)
  assert done.returncode == 0, done.stderr[-3000:]
  assert "AutoGraph could not transform" not in done.stderr


@pytest.mark.parametrize("xla", [False, True], ids=["plain", "xla"])
def test_loops_of_any_length_share_one_trace(make_trainer, xla):
  trainer = make_trainer(xla)
  trainer.train(tf.constant(1))
  traces = trainer.task.traces
  for length, steps in (3, 4), (2, 6):
    logs = trainer.train(tf.constant(length))
    assert trainer.global_step.numpy() == steps
    assert logs["training_loss"].numpy() > 0
  assert trainer.task.traces == traces
  with pytest.raises(tf.errors.OutOfRangeError):  # instead of silently running fewer steps
    trainer.train(tf.constant(1))


def test_compiled_steps_of_one_replica_run_in_a_python_loop(make_trainer):
  """Each iteration of a TensorFlow loop would wait for the device."""
  for xla in (False, True):
    trainer = make_trainer(xla)
    trainer.train(tf.constant(1))
    iterator = iter(trainer.train_dataset)
    loop = trainer.create_train_loop_fn()
    is_python = not hasattr(loop, "get_concrete_function")
    assert is_python == xla
    loop(iterator, tf.constant(2))
    assert trainer.global_step.numpy() == 3


class FailingGroup:
  """A group of replicas whose all-reduce fails during the loop."""

  def __init__(self):
    self.aborted = ""

  def failure(self):
    return "replica 1: NCCL: unhandled system error"

  @contextlib.contextmanager
  def aborted_on_error(self):
    try:
      yield
    except Exception as error:
      self.aborted = type(error).__name__
      raise


def test_failed_all_reduce_ends_the_loop(make_trainer):
  """Devices that no longer wait continue with wrong sums."""
  trainer = make_trainer(xla=True)
  trainer._group = FailingGroup()
  with pytest.raises(WorkerLostError, match="cannot train together any more: replica 1: NCCL"):
    trainer.train(tf.constant(1))
  with pytest.raises(tf.errors.OutOfRangeError):
    trainer.train(tf.constant(100))
  assert trainer._group.aborted == "OutOfRangeError"


class WaitingGroup(FailingGroup):
  """A group of several processes, which waits until it is aborted."""

  def __init__(self):
    super().__init__()
    self._reason = queue.Queue()

  def abort(self, reason):
    self._reason.put(reason)

  def failure(self):
    return self._reason.get(timeout=60)


def test_loss_of_another_process_ends_the_loop(make_trainer):
  trainer = make_trainer(xla=True)
  trainer._group = WaitingGroup()
  trainer._processes = Processes(0, list, lambda: "lost the process at b:2", str)
  with pytest.raises(WorkerLostError, match="not train together any more: lost the process at b:2"):
    trainer.train(tf.constant(1))


def test_training_step_passes_through_few_modules(make_trainer):
  """At most 9 modules, without those of the model: 7 here, and tasks/retinanet for detection."""
  trainer = make_trainer(xla=True)
  iterator = iter(trainer.train_dataset)
  tf.config.run_functions_eagerly(True)  # otherwise AutoGraph runs generated copies of functions
  try:
    modules = modules_executed(lambda: trainer.train_step(iterator))
  finally:
    tf.config.run_functions_eagerly(False)
  assert trainer.global_step.numpy() == 1
  assert sorted(modules) == [
    "compat/tensorflow",
    "compat/tf_keras",
    "training/step/captured_step",
    "training/step/int32_transport",
    "training/step/nonfinite_guard",
    "training/step/replica_step",
    "training/trainer",
  ]
