"""Every private API of TensorFlow still does what `sasa_tf.compat.tensorflow` says."""

import os
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from sasa_tf.compat import tensorflow as compat

DOUBLE = """
module @double {
  func.func public @main(%x: tensor<2xf32>) -> tensor<2xf32> {
    %sum = stablehlo.add %x, %x : tensor<2xf32>
    return %sum : tensor<2xf32>
  }
}
"""


@pytest.mark.parametrize("jit_compile", [False, True])
def test_call_module_runs_stablehlo(jit_compile):
  @tf.function(jit_compile=jit_compile)
  def run(x):
    (result,) = compat.call_module(
      [x],
      DOUBLE,
      output_specs=[tf.TensorSpec([2], tf.float32)],
      platforms=["CPU"],
      version=9,
    )
    return result

  np.testing.assert_array_equal(run(tf.constant([1.0, 2.0])), [2.0, 4.0])


def test_optimization_barrier_returns_its_input():
  x = tf.constant([1.0, 2.0])
  result = tf.function(compat.optimization_barrier, jit_compile=True)(x)
  np.testing.assert_array_equal(result, x)
  assert compat.optimization_barrier(x).shape == x.shape


@pytest.mark.parametrize("jit_compile", [False, True])
def test_in_xla_context(jit_compile):
  seen = []

  @tf.function(jit_compile=jit_compile)
  def run(x):
    seen.append(compat.in_xla_context())
    return x

  run(tf.constant(1.0))
  assert seen == [jit_compile]
  assert not compat.in_xla_context()


def test_in_save_context(tmp_path):
  seen = []

  class Module(tf.Module):
    @tf.function(input_signature=[tf.TensorSpec([], tf.float32)])
    def run(self, x):
      seen.append(compat.in_save_context())
      return x

  tf.saved_model.save(Module(), str(tmp_path))
  assert any(seen)
  assert not compat.in_save_context()


def test_updates_without_merge_call():
  strategy = tf.distribute.MirroredStrategy(["CPU:0"])
  with compat.updates_without_merge_call(strategy):
    assert not strategy.extended._use_merge_call()
  assert "_use_merge_call" not in vars(strategy.extended)


def test_replaced_all_reduce():
  with tf.distribute.OneDeviceStrategy("CPU:0").scope():

    def function():
      context = tf.distribute.get_replica_context()
      before = context.all_reduce
      with compat.replaced_all_reduce(context, lambda *_: "replaced"):
        assert tf.distribute.get_replica_context().all_reduce("SUM", 1.0) == "replaced"
      assert context.all_reduce == before
      return tf.constant(0)

    tf.distribute.get_strategy().run(function)


def test_graph_with_constant_variables():
  variable = tf.Variable([2.0])

  @tf.function
  def inner(x):
    return x * variable

  @tf.function
  def outer(x):
    return inner(x)

  graph = compat.graph_with_constant_variables(
    outer.get_concrete_function(tf.TensorSpec([1], tf.float32))
  )
  types = {operation.type for operation in graph.get_operations()}
  assert "Mul" in types
  assert not types & {"ReadVariableOp", "VarHandleOp", "PartitionedCall"}


def test_raise_async_checkpoint_error(tmp_path, capsys):
  compat.hide_async_checkpoint_errors()
  directory = tmp_path / "checkpoints"
  directory.mkdir()
  checkpoint = tf.train.Checkpoint(x=tf.Variable(1.0))
  options = tf.train.CheckpointOptions(enable_async=True)
  compat.raise_async_checkpoint_error(checkpoint)  # nothing has been saved
  checkpoint.write(str(directory / "a"), options)
  checkpoint.sync()
  compat.raise_async_checkpoint_error(checkpoint)
  (tmp_path / "file").touch()
  with pytest.raises(tf.errors.OpError):
    checkpoint.write(str(tmp_path / "file" / "b"), options)
    checkpoint.sync()
    compat.raise_async_checkpoint_error(checkpoint)
  assert "Propagating" not in capsys.readouterr().err


def test_mirrored_strategies_have_different_collective_keys():
  first, second = (compat.create_mirrored_strategy(["CPU:0"]) for _ in range(2))
  assert isinstance(first, tf.distribute.MirroredStrategy)
  assert type(first).__name__ == "MirroredStrategy"
  assert first._collective_key_base != second._collective_key_base
  assert hasattr(tf.distribute.MirroredStrategy, "_collective_key_base")


def test_set_restored_checkpoint(tmp_path):
  checkpoint = tf.train.Checkpoint(step=tf.Variable(0, dtype=tf.int64))
  manager = tf.train.CheckpointManager(
    checkpoint, str(tmp_path), 3, step_counter=checkpoint.step, checkpoint_interval=10
  )
  path = checkpoint.write(str(tmp_path / "other-5"))
  checkpoint.step.assign(5)
  compat.set_restored_checkpoint(manager, path, 5)
  assert manager.latest_checkpoint == path
  checkpoint.step.assign(14)
  assert manager.save(14) is None  # the interval counts from step 5
  checkpoint.step.assign(15)
  assert manager.save(15)


def test_may_record_gradients():
  traced = []

  @tf.function
  def compute(x):
    traced.append(compat.may_record_gradients())
    return x

  compute(1.0)
  assert not compat.may_record_gradients()
  with tf.GradientTape() as tape:
    assert compat.may_record_gradients()
    compute(tf.constant([1.0]))
    with tape.stop_recording():
      assert not compat.may_record_gradients()
  assert traced == [False, True]


def test_carries_tangents():
  x, y = tf.constant(1.0), tf.constant(2.0)
  assert not compat.carries_tangents([x, y])
  with tf.autodiff.ForwardAccumulator(x, tf.constant(1.0)):
    assert compat.carries_tangents([y, 2.0 * x])
    assert not compat.carries_tangents([y])
  assert not compat.carries_tangents([x])


def test_captured_variables_are_replaced():
  old, new = tf.Variable([1.0]), tf.Variable([2.0])
  function = tf.function(lambda: 3.0 * old).get_concrete_function()
  compat.replace_captured_variables(function, [old], [new])
  assert function().numpy() == [6.0]
  with pytest.raises(ValueError, match="expected a variable like"):
    compat.replace_captured_variables(function, [new], [tf.Variable([1, 2])])


@pytest.mark.skipif(not tf.__version__.startswith("2.20"), reason="another release of Abseil")
@pytest.mark.parametrize("level", ["0", "3"])
def test_abseil_log_has_the_level_of_tensorflow(level):
  program = (
    "import tensorflow as tf; from sasa_tf.compat import tensorflow; "
    "tf.function(lambda x: x + 1, jit_compile=True)(tf.ones([1]))"
  )
  environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": level}
  done = subprocess.run(
    [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
  )
  assert ("Compiled cluster using XLA" in done.stderr) == (level == "0"), done.stderr
  assert (done.stderr == "") == (level == "3")


def test_constants_are_inlined():
  constant, variable = tf.constant([1.0, 2.0]), tf.Variable(3.0)

  def function(x):
    return tf.cond(x > 0, lambda: x * constant, lambda: x - constant) + variable

  def inlined(x):
    with compat.inlined_constants():
      return function(x)

  captured = tf.function(function).get_concrete_function(tf.TensorSpec([]))
  assert any(tensor is constant for tensor, _ in captured.graph.captures)
  traced = tf.function(inlined).get_concrete_function(tf.TensorSpec([]))
  assert [tensor.dtype for tensor, _ in traced.graph.captures] == [tf.resource]
  for x in (2.0, -2.0):
    expected = function(tf.constant(x))
    np.testing.assert_array_equal(traced(tf.constant(x)), expected)
    np.testing.assert_array_equal(inlined(tf.constant(x)), expected)


def test_processes_answer_outside_of_a_cluster():
  assert compat.answers_in_cluster("/job:worker/replica:0/task:1", timeout_seconds=1)


@pytest.mark.parametrize(
  "error", [tf.errors.DeadlineExceededError, tf.errors.UnavailableError, tf.errors.InternalError]
)
def test_errors_of_processes_that_do_not_answer(monkeypatch, error):
  """Those of a cluster; `process_watch_test` has one."""

  def check(task, timeout_in_ms):
    assert (task, timeout_in_ms) == ("/job:worker/replica:0/task:1", 1500)
    raise error(None, None, "no answer")

  monkeypatch.setattr(compat.eager_context.context(), "check_collective_ops_peer_health", check)
  answers = compat.answers_in_cluster("/job:worker/replica:0/task:1", timeout_seconds=1.5)
  assert answers == (error is tf.errors.InternalError)
