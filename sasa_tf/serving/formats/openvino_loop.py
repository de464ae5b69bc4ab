"""Runs an OpenVINO model on one image of a batch after the other."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
  import openvino


def image_by_image(model: openvino.Model) -> openvino.Model:
  """Returns a model of a dynamic batch, whose loop runs the given one on single images.

  OpenVINO reuses memory among tensors only where their sizes are known, and executes such graphs
  faster. A model with other unknown sizes, such as those of the suppression of detections, is
  returned as it is: OpenVINO 2026.4 returns wrong results of such loops.

  Args:
    model: takes images [B, H, W, 3] of a dynamic B and returns outputs [B, ...].
  """
  import numpy as np
  import openvino
  from openvino import opset13 as operations

  body = model.clone()
  source = body.input()
  _, *image_shape = source.partial_shape
  images = operations.parameter([-1, *image_shape], np.float32, source.get_any_name())
  images.output(0).set_names(source.names)
  body.reshape([1, *image_shape])
  sizes = [value.partial_shape for node in body.get_ops() for value in node.outputs()]
  if any(size.is_dynamic for size in sizes):
    return model
  loop = operations.tensor_iterator()
  loop.set_body(body)
  axis, first, step, last = 0, 0, 1, -1
  loop.set_sliced_input(body.get_parameters()[0], images.output(0), first, step, step, last, axis)
  results = []
  for output in body.outputs:
    inner = output.node
    joined = loop.get_concatenated_slices(inner.output(0), first, step, step, last, axis)
    result = operations.result(joined)
    result.output(0).set_names(output.names)
    result.set_friendly_name(inner.get_friendly_name())
    results.append(result)
  return openvino.Model(results, [images], model.get_friendly_name())
