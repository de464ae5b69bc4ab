"""Non-finite losses and gradients, on one and two replicas, with and without XLA."""

import os
import subprocess
import sys
import types

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from sasa_tf.errors import UserError
from sasa_tf.training.step.nonfinite_guard import NonfiniteGuard
from sasa_tf.training.step.replica_step import ReplicaStep

BATCH = 8
REPLICAS = int(os.environ.get("SASA_TF_TEST_REPLICAS", "1"))

if REPLICAS > 1:  # in the subprocess of the last test
  tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * REPLICAS
  )


@tf.custom_gradient
def scale_gradient(values, scale):
  return values, lambda gradient: (gradient * scale, None)


class Task:
  """The part of a Model Garden task that a step needs, for a regression."""

  loss = "total_loss"

  def train_step(self, inputs, model, optimizer, metrics):
    images, scale, loss_scale = inputs
    with tf.GradientTape() as tape:
      outputs = model(images, training=True)
      outputs = scale_gradient(outputs, scale)
      loss = tf.reduce_mean(outputs**2) * loss_scale[0]
      scaled = loss / tf.distribute.get_strategy().num_replicas_in_sync
    gradients = tape.gradient(scaled, model.trainable_variables)
    optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
    metrics[0].update_state(loss)
    return {self.loss: loss}


class Run:
  """Runs steps of the task, as `Trainer` does."""

  def __init__(self, policy, jit_compile=False):
    self.strategy = (
      tf.distribute.MirroredStrategy([f"CPU:{index}" for index in range(REPLICAS)])
      if REPLICAS > 1
      else tf.distribute.OneDeviceStrategy("CPU:0")
    )
    tf_keras.utils.set_random_seed(0)
    with self.strategy.scope():
      self.model = tf_keras.Sequential(
        [
          tf_keras.layers.Dense(4, name="first", input_shape=[3]),
          tf_keras.layers.BatchNormalization(name="norm"),
          tf_keras.layers.Dense(2, name="second"),
        ]
      )
      self.optimizer = tf_keras.optimizers.legacy.SGD(0.1, momentum=0.9)
      self.metric = tf_keras.metrics.Mean("loss")
      self.step = tf.Variable(
        0, dtype=tf.int64, aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA, trainable=False
      )
      self.guard = NonfiniteGuard(policy, self.model, self.optimizer, self.step)
      self.replica_step = ReplicaStep(
        Task(), self.model, self.optimizer, [self.metric], jit_compile=jit_compile, guard=self.guard
      )

    def replica(inputs):
      self.replica_step(inputs)
      self.step.assign_add(1)

    self._run = tf.function(lambda inputs: self.strategy.run(replica, args=(inputs,)))

  def train(self, **faults):
    """Runs a step with faults in one image of the last replica."""
    replicas = self.strategy.num_replicas_in_sync
    images = (
      np.random.default_rng(int(self.step.numpy())).normal(size=[BATCH, 3]).astype(np.float32)
    )
    scale, loss_scale = np.ones([BATCH, 1], np.float32), np.ones([BATCH], np.float32)
    images[-1, 0] = faults.get("image", images[-1, 0])
    scale[-1] = faults.get("scale", 1)
    loss_scale[-BATCH // replicas :] = faults.get("loss_scale", 1)
    inputs = tf.nest.map_structure(
      lambda array: self.strategy.experimental_distribute_values_from_function(
        lambda context: tf.constant(np.split(array, replicas)[context.replica_id_in_sync_group])
      ),
      (images, scale, loss_scale),
    )
    self._run(inputs)

  def state(self):
    variables = [*self.model.variables, *self.optimizer.variables()]
    return [variable.numpy() for variable in variables]


FAULTS = {
  "image": ({"image": np.nan}, "loss"),
  "infinite loss": ({"loss_scale": np.inf}, "loss"),
  "gradient": ({"scale": np.inf}, "gradient of first/kernel:0"),
}


@pytest.mark.parametrize("jit_compile", [False, True], ids=["plain", "jit"])
@pytest.mark.parametrize(("fault", "tensor"), FAULTS.values(), ids=FAULTS)
def test_stop_raises_an_error_with_step_and_tensor(jit_compile, fault, tensor):
  run = Run("stop", jit_compile)
  run.train()
  run.guard.check(1, {"loss": run.metric.result()})
  run.train()
  run.train(**fault)
  run.train()
  with pytest.raises(UserError, match=f"step 3: the {tensor} is not finite"):
    run.guard.check(3, {})


@pytest.mark.parametrize("jit_compile", [False, True], ids=["plain", "jit"])
def test_skipped_step_changes_nothing(jit_compile, capsys):
  run = Run("skip", jit_compile)
  run.train()
  for fault, _ in FAULTS.values():
    before = run.state()
    run.train(**fault)
    for old, new in zip(before, run.state(), strict=True):
      np.testing.assert_array_equal(old, new)
  before = run.state()
  run.train()
  assert any(not np.array_equal(old, new) for old, new in zip(before, run.state(), strict=True))
  run.guard.check(5, {"loss": run.metric.result()})
  warning = capsys.readouterr().err
  assert "step 2: the loss is not finite; skipped 3 of 5 steps" in warning
  assert np.isfinite(run.metric.result())
  run.guard.check(5, {})  # reported once
  assert not capsys.readouterr().err


def test_skipping_every_step_of_a_loop_raises_an_error():
  run = Run("skip")
  for _ in range(2):
    run.train(image=np.nan)
  with pytest.raises(UserError, match="all 2 steps of the loop: skipping does not help"):
    run.guard.check(2, {})


def test_nonfinite_metric_raises_an_error():
  run = Run("stop")
  run.train()
  with pytest.raises(UserError, match=r"steps 1 to 1: the metric accuracy is not finite"):
    run.guard.check(1, {"step": tf.constant(3), "accuracy": tf.constant(np.nan)})


def test_infinite_gradients_are_allowed_with_loss_scaling():
  optimizer = tf_keras.mixed_precision.LossScaleOptimizer(tf_keras.optimizers.legacy.SGD(0.1))
  model = types.SimpleNamespace(non_trainable_variables=[])
  guard = NonfiniteGuard("stop", model, optimizer, tf.Variable(0, dtype=tf.int64))
  weight, called = tf.Variable(1.0, name="weight"), []
  infinite = tf.constant(np.inf)
  guard.apply_update(tf.constant(1.0), [infinite], [weight], [], lambda: called.append(True))
  guard.check(1, {})
  guard.apply_update(infinite, [infinite], [weight], [], lambda: called.append(True))
  with pytest.raises(UserError, match="the loss is not finite"):
    guard.check(1, {})
  assert len(called) == 2


def test_unknown_policy_raises_an_error():
  with pytest.raises(UserError, match="expected stop or skip; received 'ignore'"):
    NonfiniteGuard("ignore", types.SimpleNamespace(non_trainable_variables=[]), None, None)


@pytest.mark.skipif(REPLICAS > 1, reason="runs in the subprocess of this test")
def test_two_replicas():
  """Runs tests on two logical CPUs, which must be created before TensorFlow is used."""
  done = subprocess.run(
    [sys.executable, "-m", "pytest", "-q", __file__, "-k", "gradient or (skipped_step and jit)"],
    env={**os.environ, "SASA_TF_TEST_REPLICAS": "2"},
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
    timeout=300,
  )
  assert done.returncode == 0, done.stdout
