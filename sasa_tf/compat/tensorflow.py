"""Private APIs of TensorFlow."""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import tensorflow as tf
from tensorflow.compiler.tf2xla.python import xla
from tensorflow.python.eager import context as eager_context
from tensorflow.python.eager import forwardprop_util, record
from tensorflow.python.framework import convert_to_constants
from tensorflow.python.ops import control_flow_util
from tensorflow.python.saved_model import save_context
from tensorflow.python.types import core

_strategy_numbers = itertools.count()

_LOG_LIBRARY = "libtensorflow_framework.so.2"
# absl::SetMinLogLevel of the Abseil release in TensorFlow 2.20.
_SET_MIN_LOG_LEVEL = "_ZN4absl12lts_2025012714SetMinLogLevelENS0_18LogSeverityAtLeastE"


def limit_abseil_log() -> bool:
  """Applies TF_CPP_MIN_LOG_LEVEL to the messages that TensorFlow logs through Abseil.

  TensorFlow 2.20 ignores the variable there: XLA prints two lines when it compiles the first
  program. Messages of level FATAL, which abort the process, are not affected.

  Returns:
    Whether the log is limited. It is not with other releases of Abseil.
  """
  level = os.environ.get("TF_CPP_MIN_LOG_LEVEL", "0")
  if level not in ("1", "2", "3"):
    return False
  try:
    library = ctypes.CDLL(os.path.join(tf.sysconfig.get_lib(), _LOG_LIBRARY))
    set_min_log_level = getattr(library, _SET_MIN_LOG_LEVEL)
  except (OSError, AttributeError):
    return False
  set_min_log_level.argtypes, set_min_log_level.restype = [ctypes.c_int], None
  set_min_log_level(int(level))
  return True


limit_abseil_log()


def call_module(
  operands: Sequence[tf.Tensor],
  module: str | bytes,
  *,
  output_specs: Sequence[tf.TensorSpec],
  platforms: Sequence[str],
  version: int,
) -> list[tf.Tensor]:
  """Runs a StableHLO module through the XlaCallModule operation.

  Args:
    operands: arguments of the module's main function.
    module: StableHLO as MLIR text or bytecode.
    output_specs: shape and dtype of every result; dimensions may be None.
    platforms: platforms that the module is valid for, such as ("CPU",).
    version: of XlaCallModule's calling convention.

  Returns:
    The results of the main function.
  """
  return xla.call_module(
    operands,
    version=version,
    module=module,
    Tout=[spec.dtype for spec in output_specs],
    Sout=[spec.shape for spec in output_specs],
    platforms=platforms,
  )


def optimization_barrier(tensor: tf.Tensor) -> tf.Tensor:
  """Returns the tensor behind an XLA optimization barrier, which stops fusion across it."""
  (result,) = xla.optimization_barrier(tensor)
  return tf.ensure_shape(result, tensor.shape)


def in_xla_context() -> bool:
  """Returns whether the current graph belongs to a function that XLA compiles."""
  return control_flow_util.GraphOrParentsInXlaContext(tf.compat.v1.get_default_graph())


def carries_tangents(tensors: Iterable[tf.Tensor]) -> bool:
  """Returns whether a `tf.autodiff.ForwardAccumulator` tracks any of the tensors.

  Forward-mode differentiation of a custom gradient fails if that uses a GradientTape or an
  operation without a registered gradient.
  """
  return bool(forwardprop_util.pack_tangents(list(tensors)).tangents)


def may_record_gradients() -> bool:
  """Returns whether a `tf.GradientTape` is recording in this thread.

  Not so while a tf.function is traced of which a gradient is taken from outside.
  """
  return record.could_possibly_record()


def in_save_context() -> bool:
  """Returns whether `tf.saved_model.save` is tracing functions in this thread."""
  return save_context.in_save_context()


@contextlib.contextmanager
def updates_without_merge_call(strategy: tf.distribute.Strategy) -> Iterator[None]:
  """Makes optimizers update each replica's variables in its replica context.

  By default optimizers update all replicas from the cross-replica context (`merge_call`), which XLA
  does not compile. The gradients must have been reduced already.
  """
  extended = strategy.extended
  extended._use_merge_call = lambda: False
  try:
    yield
  finally:
    del extended._use_merge_call


@contextlib.contextmanager
def inlined_constants() -> Iterator[None]:
  """Makes small eager tensors that are used in the body constants of the graph that it builds.

  A `tf.function` captures an eager tensor as an input, even a scalar. If it has parts on several
  devices, TensorFlow copies inputs from the host to each of them in every call, and waits for all
  earlier work of the device.
  """
  if tf.executing_eagerly():  # tf.config.run_functions_eagerly
    yield
    return
  graph = tf.compat.v1.get_default_graph()
  capture = graph.capture
  constants = {}

  def capture_or_inline(tensor: Any, name: str | None = None, shape: Any = None) -> Any:
    if not _is_small_eager_tensor(tensor):
      return capture(tensor, name, shape)
    if id(tensor) not in constants:
      with graph.as_default(), tf.control_dependencies(None):
        # Keeps the tensor alive, so that its id stays unique.
        constants[id(tensor)] = tensor, tf.constant(tensor.numpy(), tensor.dtype)
    return constants[id(tensor)][1]

  graph.capture = capture_or_inline
  try:
    yield
  finally:
    del graph.capture


def _is_small_eager_tensor(tensor: Any) -> bool:
  is_number = tensor.dtype.is_floating or tensor.dtype.is_integer or tensor.dtype.is_bool
  return isinstance(tensor, core.Value) and is_number and tensor.shape.num_elements() <= 128


@contextlib.contextmanager
def replaced_all_reduce(
  context: tf.distribute.ReplicaContext, all_reduce: Callable[..., Any]
) -> Iterator[None]:
  """Replaces the `all_reduce` of one replica, also for calls from Keras's layers.

  Args:
    context: context of the replica.
    all_reduce: takes the arguments of `tf.distribute.ReplicaContext.all_reduce`.
  """
  context.all_reduce = all_reduce
  try:
    yield
  finally:
    del context.all_reduce


def graph_with_constant_variables(function: tf.types.experimental.ConcreteFunction) -> tf.Graph:
  """Returns the function's graph with all variables replaced by constants and calls inlined."""
  converted, _ = convert_to_constants.convert_variables_to_constants_v2_as_graph(function)
  return converted.graph


def replace_captured_variables(
  function: tf.types.experimental.ConcreteFunction,
  old: Iterable[tf.Variable],
  new: Iterable[tf.Variable],
) -> None:
  """Makes a traced function read other variables, of equal shapes and dtypes, in the same order.

  The function still requires that the old variables exist.

  Args:
    function: concrete function that captured the old variables.
    old: the variables that it reads now.
    new: those that it shall read.

  Raises:
    ValueError: the variables do not correspond to each other.
  """
  replacements = {}
  for before, after in zip(old, new, strict=True):
    if (before.shape, before.dtype) != (after.shape, after.dtype):
      raise ValueError(
        f"expected a variable like {before.name}, {before.dtype.name} {before.shape}; received "
        f"{after.name}, {after.dtype.name} {after.shape}."
      )
    replacements[id(before.handle)] = after.handle
  captures = [replacements.get(id(capture), capture) for capture in function.captured_inputs]
  function.set_external_captures(captures)


def hide_async_checkpoint_errors() -> None:
  """Keeps TensorFlow from logging errors of asynchronous saves, which are raised as well."""
  logger = logging.getLogger("absl")
  if _is_no_async_error not in logger.filters:
    logger.addFilter(_is_no_async_error)


def _is_no_async_error(record: logging.LogRecord) -> bool:
  return not record.getMessage().startswith("Propagating the most recent error from the async")


def raise_async_checkpoint_error(checkpoint: tf.train.Checkpoint) -> None:
  """Raises the error of the last asynchronous save of a checkpoint, if it failed.

  Raises:
    tf.errors.OpError: the save failed, for instance because the disk is full.
  """
  checkpointer = getattr(checkpoint, "_async_checkpointer_impl", None)
  if checkpointer is not None:
    checkpointer._check_async_thread_error()


def create_mirrored_strategy(devices: Sequence[str]) -> tf.distribute.MirroredStrategy:
  """Returns a MirroredStrategy that can coexist with others in one process.

  Every MirroredStrategy numbers its groups of devices from the same base. TensorFlow takes two
  groups of the same number for the same group, so that collectives of a second strategy over other
  devices fail.

  Args:
    devices: names of the devices, such as "GPU:0".
  """
  strategy_class = type(
    "MirroredStrategy",
    (tf.distribute.MirroredStrategy,),
    {"_collective_key_base": 1000 * next(_strategy_numbers)},
  )
  return strategy_class(list(devices))


def set_restored_checkpoint(manager: tf.train.CheckpointManager, path: str, step: int) -> None:
  """Makes a CheckpointManager continue as if it had restored a checkpoint itself.

  Args:
    manager: manager whose checkpoint was restored.
    path: the restored checkpoint, which `manager.latest_checkpoint` then is.
    step: step of the checkpoint, from which the manager counts its checkpoint interval.
  """
  manager._last_checkpoint_step = step
  manager._latest_checkpoint = path


def answers_in_cluster(task: str, timeout_seconds: float) -> bool:
  """Returns whether another process of a multi-worker cluster answers.

  False also if it was restarted. True outside of a cluster.

  Args:
    task: name of the process, such as "/job:worker/replica:0/task:1".
    timeout_seconds: how long to wait for the answer.
  """
  milliseconds = int(1000 * timeout_seconds)
  try:
    eager_context.context().check_collective_ops_peer_health(task, timeout_in_ms=milliseconds)
    return True
  except tf.errors.InternalError:  # of a single process
    return True
  except (
    tf.errors.DeadlineExceededError,
    tf.errors.FailedPreconditionError,
    tf.errors.UnavailableError,
  ):
    return False
