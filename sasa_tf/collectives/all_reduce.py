"""The all-reduce as an operation of a function that XLA compiles."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import tensorflow as tf

from sasa_tf.collectives.replica_group import ReplicaGroup
from sasa_tf.compat import tensorflow as compat
from sasa_tf.ops.compiled.stablehlo import Array
from sasa_tf.ops.compiled.xla_custom_call import ELEMENT_TYPES, call_kernel

_ORDER = Array((), "f32")


class ProgramAllReduce:
  """The all-reduces of one replica's program, in the order in which they are traced.

  XLA may run independent operations in any order, and choose another one for each replica. Each
  all-reduce therefore takes a scalar that the previous one returns.

  Attributes:
    group: the replicas.
  """

  def __init__(self, group: ReplicaGroup, replica: int):
    """Begins a program. Must be called where its operations are traced.

    Args:
      group: the replicas.
      replica: number of this one.
    """
    self.group = group
    self._replica = replica
    self._program = group.next_program(replica)
    self._num_started = 0
    self._order = tf.zeros([])

  def __call__(self, tensors: Sequence[tf.Tensor]) -> list[tf.Tensor]:
    """Returns the sums over all replicas. Differentiable.

    Args:
      tensors: float32, bfloat16 or float16, with static shapes.

    Raises:
      ValueError: a shape is not static, or a dtype is not supported.
      NotImplementedError: called in a branch, a loop or another function of the program.
    """

    @tf.custom_gradient
    def reduce(*tensors: tf.Tensor) -> Any:
      # Each replica's loss depends on the sums of all replicas.
      return self._call("all_reduce", tensors), lambda *upstream: self(upstream)

    return list(reduce(*tensors))

  def reduce_asynchronously(self, tensors: Sequence[tf.Tensor]) -> list[tf.Tensor]:
    """Returns the sums over all replicas. Each tensor is reduced beside the program.

    On GPUs, XLA can compute later tensors while earlier ones are on their way. NCCL reduces each in
    its own memory. Not differentiable. Must be called in a function that XLA compiles.

    Args:
      tensors: as for `__call__`, in the order in which they are computed.
    """
    slots = range(self._num_started, self._num_started + len(tensors))
    self._num_started += len(tensors)
    started = [
      self._call("all_reduce_start", [tensor], slot)
      for slot, tensor in zip(slots, tensors, strict=True)
    ]
    # All have been started before the program waits for the first one.
    return [
      self._call("all_reduce_finish", of_tensor, slot)[0]
      for slot, of_tensor in zip(slots, started, strict=True)
    ]

  def _call(self, kernel: str, tensors: Sequence[tf.Tensor], slot: int = 0) -> list[tf.Tensor]:
    for tensor in tensors:
      if not tensor.shape.is_fully_defined() or tensor.dtype not in ELEMENT_TYPES:
        raise ValueError(
          "an all-reduce within an XLA program takes tensors of static shapes, of float32, "
          f"bfloat16 or float16; received {tensor.dtype.name} {tensor.shape}."
        )
    if not tf.executing_eagerly() and self._order.graph is not tf.compat.v1.get_default_graph():
      raise NotImplementedError(
        "an all-reduce within an XLA program cannot be in a branch, a loop or a nested function: "
        "replicas could disagree about how often it runs. Set --all_reduce=between_programs."
      )
    specs = [tf.TensorSpec(tensor.shape, tensor.dtype) for tensor in tensors]
    self._order, *results = call_kernel(
      _module(kernel, specs, self._attributes(slot)),
      [self.group.platform],
      [self._order, *tensors],
      [tf.TensorSpec([]), *specs],
    )
    return results

  def _attributes(self, slot: int) -> str:
    values = {
      "group": self.group.number,
      "replica": self._replica - self.group.first_replica,
      "program": self._program,
      "slot": slot,
    }
    return ", ".join(f"{name} = {value} : i64" for name, value in values.items())


def _module(kernel: str, specs: Sequence[tf.TensorSpec], attributes: str) -> str:
  """Returns the StableHLO text of the call, whose results are written over its operands."""
  arrays = [_ORDER, *(Array(tuple(spec.shape), ELEMENT_TYPES[spec.dtype]) for spec in specs)]
  names = [f"%argument{i}" for i in range(len(arrays))]
  results = [f"%results#{i}" for i in range(len(arrays))]
  types = ", ".join(map(str, arrays))
  layouts = ", ".join(array.layout for array in arrays)
  aliases = ", ".join(
    f"#stablehlo.output_operand_alias<output_tuple_indices = [{i}], operand_index = {i}, "
    "operand_tuple_indices = []>"
    for i in range(len(arrays))
  )
  parameters = ", ".join(f"{name}: {array}" for name, array in zip(names, arrays, strict=True))
  return f"""module @all_reduce {{
  func.func public @main({parameters}) -> ({types}) {{
    %results:{len(arrays)} = stablehlo.custom_call @"sasa_tf_{kernel}"({", ".join(names)}) {{
      api_version = 4 : i32, has_side_effect = true,
      backend_config = {{{attributes}}},
      output_operand_aliases = [{aliases}],
      operand_layouts = [{layouts}], result_layouts = [{layouts}]}} : ({types}) -> ({types})
    return {", ".join(results)} : {types}
  }}
}}
"""


@contextlib.contextmanager
def reduce_within_program(group: ReplicaGroup) -> Iterator[ProgramAllReduce]:
  """Makes all-reduces of this replica, such as those of batch norm, part of its XLA program.

  Must be entered in replica context, in the function that XLA compiles. Sums and means are
  supported.

  Args:
    group: the replicas of the strategy, in its order.

  Yields:
    The all-reduces of the program.
  """
  context = tf.distribute.get_replica_context()
  replica = int(tf.get_static_value(context.replica_id_in_sync_group))
  program = ProgramAllReduce(group, replica)

  def all_reduce(reduce_op: Any, value: Any, options: Any = None) -> Any:
    operation = tf.distribute.ReduceOp(
      reduce_op.upper() if isinstance(reduce_op, str) else reduce_op
    )
    sums = program(tf.nest.flatten(value))
    if operation == tf.distribute.ReduceOp.MEAN:
      sums = [total / group.size for total in sums]
    return tf.nest.pack_sequence_as(value, sums)

  with compat.replaced_all_reduce(context, all_reduce):
    yield program
