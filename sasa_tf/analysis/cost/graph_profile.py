"""The FLOPs that TensorFlow's profiler counts in a model's graph, and what it does not count.

TF Model Garden logs this number (`official.core.train_utils.try_count_flops`).
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import tensorflow as tf

from sasa_tf.compat.tensorflow import graph_with_constant_variables

# Operations on floats without arithmetic.
_MOVEMENT = frozenset(
  {
    "BatchToSpaceND",
    "BroadcastTo",
    "Cast",
    "ConcatV2",
    "Const",
    "EnsureShape",
    "Enter",
    "Exit",
    "ExpandDims",
    "ExtractImagePatches",
    "Fill",
    "GatherNd",
    "GatherV2",
    "Identity",
    "IdentityN",
    "Merge",
    "MirrorPad",
    "NextIteration",
    "OneHot",
    "Pack",
    "Pad",
    "PadV2",
    "Placeholder",
    "PlaceholderWithDefault",
    "Range",
    "Reshape",
    "ReverseV2",
    "Roll",
    "Select",
    "SelectV2",
    "Slice",
    "SpaceToBatchND",
    "Split",
    "SplitV",
    "Squeeze",
    "StopGradient",
    "StridedSlice",
    "Switch",
    "TensorListGetItem",
    "TensorListStack",
    "Tile",
    "Transpose",
    "Unpack",
  }
)


@dataclasses.dataclass(frozen=True)
class GraphProfile:
  """The profiler's counts for one image.

  Attributes:
    flops: FLOPs of the operations that run. They depend on the implementation of attention and
      include its redundant operations.
    uncounted: {type of operation: number} of floating point operations that count as 0, because the
      profiler has no formula for them or does not know their shapes.
    loops: number of loops. Their bodies count as if they ran once.
  """

  flops: int
  uncounted: Mapping[str, int]
  loops: int


def profile_graph(model: Any, input_shapes: Sequence[Sequence[int]]) -> GraphProfile:
  """Builds the graph of a model for one image and counts it with TensorFlow's profiler.

  Args:
    model: a model of Keras 3 or tf_keras.
    input_shapes: shape of each input without the batch dimension.

  Returns:
    The counts, with the FLOPs that Model Garden's trainer logs.
  """
  specs = [
    tf.TensorSpec((1, *shape), tensor.dtype)
    for shape, tensor in zip(input_shapes, model.inputs, strict=True)
  ]

  def forward(*images):
    return model(images[0] if len(images) == 1 else list(images), training=False)

  with _quiet():
    # The conversion to constants also inlines function calls.
    graph = graph_with_constant_variables(tf.function(forward).get_concrete_function(*specs))
    options = tf.compat.v1.profiler.ProfileOptionBuilder.float_operation()
    options["output"] = "none"
    by_type = tf.compat.v1.profiler.profile(graph=graph, cmd="op", options=options)
  counted = {node.name for node in _descendants(by_type) if node.float_ops}
  types = Counter(
    operation.type
    for operation in graph.get_operations()
    if any(output.dtype.is_floating for output in operation.outputs)
  )
  return GraphProfile(
    flops=by_type.total_float_ops,
    uncounted={
      kind: count
      for kind, count in types.most_common()
      if kind not in counted and kind not in _MOVEMENT
    },
    loops=sum(operation.type == "LoopCond" for operation in graph.get_operations()),
  )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
  """Suppresses the profiler's warnings on its deprecation and on operations of unknown size."""
  logger = tf.get_logger()
  level = logger.level
  logger.setLevel("ERROR")
  try:
    with contextlib.redirect_stderr(io.StringIO()):
      yield
  finally:
    logger.setLevel(level)


def _descendants(node: Any) -> Iterator[Any]:
  for child in node.children:
    yield child
    yield from _descendants(child)
