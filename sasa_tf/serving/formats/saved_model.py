"""The SavedModel format of TensorFlow: one signature per input type, preprocessing included."""

from __future__ import annotations

import pathlib
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sasa_tf.errors import UserError
from sasa_tf.outputs.layout import DirectoryLayout
from sasa_tf.serving.compiled_kernels import library_file
from sasa_tf.serving.formats.format import ExportFormat, ExportOptions

if TYPE_CHECKING:
  from official.vision.serving import export_base

SIGNATURES = ("image_tensor", "image_bytes", "tf_example")

# Relative to the SavedModel. Model servers ignore assets.extra.
LABELS = pathlib.PurePath("assets.extra", "labels.txt")
METADATA = pathlib.PurePath("assets.extra", "model_metadata.json")

_EXTRA = "|".join(
  re.escape(path.as_posix())
  for path in (LABELS, METADATA, library_file.LIBRARY, library_file.README)
)
LAYOUT = DirectoryLayout(
  "an exported SavedModel of sasa_tf",
  # TensorFlow's SavedModels have no params.yaml.
  required=("saved_model.pb", "params.yaml", "variables/variables.index"),
  files=rf"saved_model\.pb|fingerprint\.pb|params\.yaml|{_EXTRA}|"
  r"variables/variables\.(index|data-\d{5}-of-\d{5})",
  directories=r"variables|assets|assets\.extra",
  temporary=r"variables/variables_temp(/.*)?|[^/]+\.tmp[^/]*|.*\.tempstate\d+",
)


def write(
  module: export_base.ExportModule, path: pathlib.Path, options: ExportOptions
) -> str | None:
  """Writes an export module as a SavedModel, with one signature per input type.

  Args:
    module: export module with restored weights.
    path: existing, empty directory.
    options: of the export.

  Returns:
    What a verification on a CPU does not compare, if anything.
  """
  from official.core import train_utils

  from sasa_tf.data import labels
  from sasa_tf.ops import tracing_for_export
  from sasa_tf.serving import gpu_signature

  default = options.saved_model.input_type
  signatures = {name: "serving_default" if name == default else name for name in SIGNATURES}
  if options.saved_model.cpu_kernels:
    from sasa_tf.serving.compiled_kernels.signatures import trace_with_kernels

    functions = trace_with_kernels(module, signatures)
  else:
    with tracing_for_export(quantizable=False, batch_loop=True):
      functions = module.get_inference_signatures(signatures)
  gpu = _gpu_signature(module, options)
  if gpu is not None:
    functions = {**functions, gpu_signature.NAME: gpu.function}
  save(path, module, functions)
  train_utils.serialize_config(module.params, str(path))
  (path / METADATA).parent.mkdir()
  if options.saved_model.cpu_kernels:
    library_file.copy_library(path)
  metadata = options.metadata.to_json(gpu=None if gpu is None else gpu.describe())
  (path / METADATA).write_text(metadata, encoding="utf-8")
  if options.metadata.class_names is not None:
    labels.write_labels(path / LABELS, options.metadata.class_names)
  return None if gpu is None else f"signature {gpu_signature.NAME!r} needs a GPU: not compared"


def _gpu_signature(module: export_base.ExportModule, options: ExportOptions) -> Any:
  """Returns the `GpuSignature`, or None; reports which."""
  from sasa_tf.serving.gpu_signature import choose_kernels, gpu_signature

  requested, report = options.saved_model.gpu_kernels, options.saved_model.report
  kernel_format, reason = choose_kernels(requested)
  if kernel_format is None:
    if requested != "none":
      report(f"no signature 'gpu': {reason}")
    return None
  try:
    signature = gpu_signature(module, kernel_format)
  except UserError as error:
    if requested != "auto":
      raise
    report(f"no signature 'gpu': {error}")
    return None
  report(str(signature))
  return signature


def save(
  path: pathlib.Path, module: export_base.ExportModule, signatures: Mapping[str, Any]
) -> None:
  """Writes the weights and signatures of an export module, without gradients.

  Args:
    path: directory to create; may exist and be empty.
    module: export module that owns the weights of the signatures.
    signatures: concrete functions by name.
  """
  import tensorflow as tf

  # Saving the Keras model itself would also write the functions of each layer.
  servable = tf.Module()
  servable.weights = module.model.variables
  tf.saved_model.save(
    servable,
    str(path),
    signatures=dict(signatures),
    # Saved gradients would double the size of the graph.
    options=tf.saved_model.SaveOptions(experimental_custom_gradients=False),
  )


FORMAT = ExportFormat(
  name="saved_model",
  file_name="saved_model",
  write=write,
  description="TensorFlow SavedModel for TensorFlow Serving, Triton and Python",
  layout=LAYOUT,
)
