"""Ahead-of-time compilation of TensorFlow functions for one core of a TPU v5e, on any machine.

TensorFlow lowers the function to StableHLO, and the compiler in libtpu, called through JAX,
compiles it. The result shows whether a TPU supports every operation and how much memory the program
needs. It is no reliable indication of speed.
"""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from sasa_tf.errors import UserError
from sasa_tf.ops import use_target_device

TOPOLOGY = "v5e:2x2"  # the smallest one of libtpu; the target is one of its four cores
MEMORY = 63 * 2**28  # bytes available to programs, 15.75 of the 16 GiB of a core

# Without these, libtpu queries the network for the type of this machine, writes logs to /tmp, and
# allows only one process to compile at a time.
_ENVIRONMENT = {
  "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
  "JAX_PLATFORMS": "cpu",
  "TPU_ACCELERATOR_TYPE": "v5litepod-4",
  "TPU_LOG_DIR": "disabled",
  "TPU_MIN_LOG_LEVEL": "3",
  "TPU_SKIP_MDS_QUERY": "1",
  "TPU_WORKER_HOSTNAMES": "localhost",
  "TPU_WORKER_ID": "0",
}


class CompileError(RuntimeError):
  """The function cannot be compiled for a TPU; the message is the compiler's."""


@dataclasses.dataclass(frozen=True)
class Memory:
  """The memory of a core that a compiled program needs, in bytes.

  Attributes:
    arguments: inputs and variables.
    outputs: results and updated variables.
    shared: outputs that reuse the buffer of an argument.
    temporaries: buffers that exist only while the program runs.
    code: the program itself.
  """

  arguments: int
  outputs: int
  shared: int
  temporaries: int
  code: int

  @property
  def total(self) -> int:
    """Sum of all parts; shared buffers count once."""
    return self.arguments + self.outputs - self.shared + self.temporaries + self.code

  @property
  def fits(self) -> bool:
    """Whether the program fits into the memory of a core."""
    return self.total <= MEMORY


@functools.cache
def _core() -> Any:
  """Returns the core to compile for, as a device of JAX.

  Raises:
    UserError: jax or libtpu is not installed.
  """
  os.environ.update(_ENVIRONMENT)
  try:
    import libtpu  # noqa: F401
    from jax.experimental import topologies
  except ImportError as error:
    raise UserError(
      f"compiling for a TPU needs jax and libtpu, which are not installed ({error}). Install "
      "them with `pip install 'sasa_tf[tpu]'`, in a checkout with `pip install -e '.[tpu]' "
      "-c constraints.txt` (Python 3.11 or newer, Linux on x86-64), or run `make tpu-check`."
    ) from error
  return topologies.get_topology_desc(TOPOLOGY, platform="tpu").devices[0]


def require_compiler() -> None:
  """Raises a UserError with installation instructions if the compiler is not installed."""
  _core()


def lower(
  function: Callable[..., Any],
  specs: Sequence[tf.TensorSpec],
  stage: str = "stablehlo_serialized",
  device: str = "TPU",
) -> bytes | str:
  """Lowers a function to StableHLO for a device that need not be present.

  Args:
    function: takes tensors. It may read and assign variables, which become arguments and results.
    specs: specs of its arguments, with static shapes.
    stage: TensorFlow's name of the output format; "stablehlo" is readable text.
    device: "TPU" or "GPU".

  Raises:
    CompileError: TensorFlow cannot compile an operation with XLA.
  """
  with use_target_device(device):
    concrete = tf.function(function, jit_compile=True, autograph=False)
    try:
      # TensorFlow's wheels have no kernels for XLA_TPU_JIT; CPU kernels lower to the same code.
      return concrete.experimental_get_compiler_ir(*specs)(stage=stage, platform_name="CPU")
    except (ValueError, tf.errors.OpError) as error:
      raise CompileError(str(error)) from error


def compile_for_tpu(function: Callable[..., Any], specs: Sequence[tf.TensorSpec]) -> Memory:
  """Compiles a function for one core of a TPU v5e.

  Args:
    function: takes tensors. It may read and assign variables, which become arguments and results.
    specs: specs of its arguments, with static shapes.

  Returns:
    The memory that the program needs.

  Raises:
    CompileError: a TPU does not support an operation, or the program exceeds its memory.
    UserError: the compiler is not installed.
  """
  core = _core()
  import jax
  from jax.extend.mlir import ir
  from jax.interpreters import mlir
  from jaxlib import _jax

  with mlir.make_ir_context():
    module = ir.Module.parse(lower(function, specs))
    remove_copies(module)
    try:
      program = core.client.compile(
        module,
        executable_devices=_jax.DeviceList((core,)),
        compile_options=_jax.CompileOptions(),
      )
    except jax.errors.JaxRuntimeError as error:
      raise CompileError(str(error)) from error
  stats = program.get_compiled_memory_stats()
  return Memory(
    arguments=stats.argument_size_in_bytes,
    outputs=stats.output_size_in_bytes,
    shared=stats.alias_size_in_bytes,
    temporaries=stats.temp_size_in_bytes,
    code=stats.generated_code_size_in_bytes,
  )


def remove_copies(module: Any) -> None:
  """Removes the copies of assigned variables, which are not operations of StableHLO."""
  from jax.extend.mlir import ir

  copies = []

  def collect(operation: Any) -> Any:
    if operation.name == "mhlo.copy":
      copies.append(operation)
    return ir.WalkResult.ADVANCE

  module.operation.walk(collect)
  for copy in copies:
    copy.results[0].replace_all_uses_with(copy.operands[0])
    copy.erase()
