"""What TensorFlow's profiler counts in a model's graph, and what it does not.

It is the figure that TF Model Garden logs (`official.core.train_utils.try_count_flops`).
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import (
  convert_variables_to_constants_v2_as_graph,
)

# Operations on floats that compute nothing.
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
  """The count of the profiler, for one image.

  Attributes:
    flops: its figure. It is that of the operations that run, so it depends on the implementation
      of attention and includes what that one wastes.
    uncounted: {type of operation: how many} of those that compute with floats and count as 0:
      the profiler has no formula for them, or does not know their shapes.
    loops: how many loops there are. Their bodies count as if they ran once.
  """

  flops: int
  uncounted: Mapping[str, int]
  loops: int


def profile_graph(model: Any, input_shapes: Sequence[Sequence[int]]) -> GraphProfile:
  """Builds the graph of a model for one image and lets TensorFlow's profiler count it.

  Args:
    model: of either Keras.
    input_shapes: of each input without the batch.

  Returns:
    The count, as Model Garden's trainer logs it.
  """
  specs = [
    tf.TensorSpec((1, *shape), tensor.dtype)
    for shape, tensor in zip(input_shapes, model.inputs, strict=True)
  ]

  def forward(*images):
    return model(images[0] if len(images) == 1 else list(images), training=False)

  with _quiet():
    # With weights as constants, what is called in functions lies open.
    function = tf.function(forward).get_concrete_function(*specs)
    graph = convert_variables_to_constants_v2_as_graph(function)[0].graph
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
  """Without the profiler's remarks: that it is of TensorFlow 1, and on operations of no size."""
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
