"""The signature that all formats but SavedModel hold: images of the model's input size."""

from __future__ import annotations

import pathlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
  import tensorflow as tf
  from official.vision.serving import export_base


def prepared_signature(
  module: export_base.ExportModule, batch_size: int | None
) -> tuple[Any, tf.TensorSpec]:
  """Returns the function `serve_prepared` and the spec of its input.

  Args:
    module: export module.
    batch_size: of the input; None if it is dynamic.
  """
  import tensorflow as tf

  shape = [batch_size, *module.prepared_size, 3]
  return tf.function(module.serve_prepared), tf.TensorSpec(shape, tf.float32, name="images")


def write_prepared(
  module: export_base.ExportModule,
  path: pathlib.Path,
  batch_size: int | None,
  *,
  for_openvino: bool = False,
) -> None:
  """Writes a SavedModel with only this signature, for the converters of other formats.

  Args:
    module: export module with restored weights.
    path: directory to create.
    batch_size: of the input; None if it is dynamic.
    for_openvino: of `tracing_for_export`.
  """
  from sasa_tf.ops import tracing_for_export
  from sasa_tf.serving.formats.saved_model import save

  function, images = prepared_signature(module, batch_size)
  with tracing_for_export(quantizable=False, for_openvino=for_openvino):
    concrete = function.get_concrete_function(images)
  save(path, module, {"serving_default": concrete})


IMPLEMENTATION_HINT = (
  "The attention implementation must be 'auto' or 'blocked', for example --params_override="
  "task.model.backbone.sasa_resnet.implementation=blocked."
)
