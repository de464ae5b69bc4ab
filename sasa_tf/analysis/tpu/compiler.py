"""Compiles a TensorFlow function ahead of time for one core of a TPU v5e, on any machine.

TensorFlow lowers the function to StableHLO, and the compiler in libtpu, which JAX brings along,
makes a TPU's program of it. It says whether a TPU has every operation and how much memory the
program takes; of speed it says nothing that could be relied on.
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

TOPOLOGY = "v5e:2x2"  # the smallest that libtpu knows; one of its four cores is compiled for
MEMORY = 63 * 2**28  # bytes that the compiler gives programs of a core's 16 GiB: 15.75 GiB

# libtpu otherwise asks the network which machine this is, writes logs to /tmp, and lets only one
# process at a time compile.
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
  """A TPU cannot run the function; the message is the compiler's."""


@dataclasses.dataclass(frozen=True)
class Memory:
  """What a compiled program takes of a core's memory, in bytes.

  Attributes:
    arguments: inputs and variables.
    outputs: results and updated variables.
    shared: outputs that lie where an argument was.
    temporaries: all that exists only while the program runs.
    code: the program itself.
  """

  arguments: int
  outputs: int
  shared: int
  temporaries: int
  code: int

  @property
  def total(self) -> int:
    """All of it together."""
    return self.arguments + self.outputs - self.shared + self.temporaries + self.code

  @property
  def fits(self) -> bool:
    """Whether a core has that much."""
    return self.total <= MEMORY


@functools.cache
def _core() -> Any:
  """Returns the core to compile for.

  Raises:
    UserError: the packages are not installed.
  """
  os.environ.update(_ENVIRONMENT)
  try:
    import libtpu  # noqa: F401
    from jax.experimental import topologies
  except ImportError as error:
    raise UserError(
      f"compiling for a TPU needs jax and libtpu, which are not installed here ({error}). Install "
      "them with `pip install 'sasa_tf[tpu]'`, in a checkout with `pip install -e '.[tpu]' "
      "-c constraints.txt` (Python 3.11 or newer, Linux on x86-64), or type `make tpu-check`."
    ) from error
  return topologies.get_topology_desc(TOPOLOGY, platform="tpu").devices[0]


def require_compiler() -> None:
  """Raises a UserError that says how to install the compiler where it is missing."""
  _core()


def lower(
  function: Callable[..., Any],
  specs: Sequence[tf.TensorSpec],
  stage: str = "stablehlo_serialized",
  device: str = "TPU",
) -> bytes | str:
  """Returns the function as StableHLO, made for a device that need not be here.

  Args:
    function: of tensors. It may read and assign variables, which become arguments and results.
    specs: of its arguments, with static shapes.
    stage: TensorFlow's name of the form; "stablehlo" is for reading.
    device: "TPU" or "GPU".

  Raises:
    CompileError: TensorFlow cannot compile an operation with XLA.
  """
  with use_target_device(device):
    concrete = tf.function(function, jit_compile=True, autograph=False)
    try:
      # TensorFlow's packages have no kernels for XLA_TPU_JIT; those for the CPU lower to the same.
      return concrete.experimental_get_compiler_ir(*specs)(stage=stage, platform_name="CPU")
    except (ValueError, tf.errors.OpError) as error:
      raise CompileError(str(error)) from error


def compile_for_tpu(function: Callable[..., Any], specs: Sequence[tf.TensorSpec]) -> Memory:
  """Compiles a function for one core of a TPU v5e.

  Args:
    function: of tensors. It may read and assign variables, which become arguments and results.
    specs: of its arguments, with static shapes.

  Returns:
    The memory that the program takes.

  Raises:
    CompileError: an operation that a TPU does not have, or a program beyond its memory.
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
  """Takes out what TensorFlow puts around assigned variables and is no operation of StableHLO."""
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
