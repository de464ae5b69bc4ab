"""Signatures that call the compiled kernels as XLA custom calls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf

from sasa_tf.errors import UserError
from sasa_tf.ops import tracing_for_export, use_target_device
from sasa_tf.serving.compiled_kernels.library_file import STOCK_SUFFIX, require_kernels


def trace_with_kernels(
  module: Any, signatures: Mapping[str, str], class_names: Sequence[str] | None = None
) -> dict[str, Any]:
  """Returns the signatures of an export module with the compiled kernels, and without.

  Those with kernels run on the CPU and have the given names. Those in TensorFlow's own operations
  have names that end with `STOCK_SUFFIX`.

  Args:
    module: export module.
    signatures: see `ImageModule.get_inference_signatures`.
    class_names: see `ImageModule.get_inference_signatures`.

  Raises:
    UserError: there are no kernels, or the model has no operation that uses them.
  """
  require_kernels()
  with tracing_for_export(quantizable=False):
    stock = module.get_inference_signatures(signatures, class_names)
  with (
    tf.device("/device:CPU:0"),
    use_target_device("CPU"),
    tracing_for_export(compiled_kernels=True),
  ):
    functions = module.get_inference_signatures(signatures, class_names)
  if not all(map(calls_kernels, functions.values())):
    raise UserError(
      "--cpu_kernels: the model has no attention that the compiled kernels support. They need "
      "implementation 'auto' or 'fused', windows of up to 11 x 11 pixels and heads of up to 128 "
      "channels. Export it without --cpu_kernels."
    )
  return {**functions, **{f"{name}{STOCK_SUFFIX}": each for name, each in stock.items()}}


def calls_kernels(function: tf.types.experimental.ConcreteFunction) -> bool:
  """Returns whether a function, or one that it calls, has custom calls of the kernels."""
  graph = function.graph.as_graph_def()
  nodes = [*graph.node, *(node for called in graph.library.function for node in called.node_def)]
  return any(node.op == "XlaCallModule" for node in nodes)
