"""The SavedModel format of TensorFlow: one signature per input type, preprocessing included."""

from __future__ import annotations

import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sasa_tf.errors import UserError
from sasa_tf.outputs.layout import DirectoryLayout
from sasa_tf.serving.compiled_kernels import library_file
from sasa_tf.serving.formats.format import ExportFormat, ExportOptions

if TYPE_CHECKING:
  from official.vision.serving import export_base

# Relative to the SavedModel. Model servers ignore assets.extra.
LABELS = pathlib.PurePath("assets.extra", "labels.txt")
METADATA = pathlib.PurePath("assets.extra", "model_metadata.json")

# Requests that TensorFlow Serving runs before it serves a version. The name is the server's.
WARMUP_REQUESTS = pathlib.PurePath("assets.extra", "tf_serving_warmup_requests")

_EXTRA = "|".join(
  re.escape(path.as_posix())
  for path in (LABELS, METADATA, WARMUP_REQUESTS, library_file.LIBRARY, library_file.README)
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
  """Writes an export module as a SavedModel, with one signature per kind of input.

  Args:
    module: export module with restored weights.
    path: existing, empty directory.
    options: of the export.

  Returns:
    What a verification on a CPU does not compare, if anything.

  Raises:
    UserError: the module does not have a requested signature.
  """
  import tensorflow as tf
  from official.core import train_utils

  from sasa_tf.data import labels
  from sasa_tf.serving import gpu_signature
  from sasa_tf.serving.tensorflow_serving.method_names import set_method_names
  from sasa_tf.serving.tensorflow_serving.warmup import write_warmup_requests

  class_names = options.metadata.class_names
  functions = _trace(module, options)
  gpu = _gpu_signature(module, options)
  save(path, module, functions if gpu is None else {**functions, gpu_signature.NAME: gpu.function})
  classify = [name for name in functions if name.startswith("classify")]
  if classify:
    set_method_names(path, dict.fromkeys(classify, tf.saved_model.CLASSIFY_METHOD_NAME))
  train_utils.serialize_config(module.params, str(path))
  (path / METADATA).parent.mkdir()
  if options.saved_model.cpu_kernels:
    library_file.copy_library(path)
  metadata = options.metadata.to_json(gpu=None if gpu is None else gpu.describe())
  (path / METADATA).write_text(metadata, encoding="utf-8")
  if class_names is not None:
    labels.write_labels(path / LABELS, class_names)
  if options.saved_model.warmup_requests:  # not of the GPU's, which a CPU cannot run
    write_warmup_requests(
      path / WARMUP_REQUESTS,
      functions,
      image_size=module.prepared_size,
      image_key=module.image_key,
      requests=options.saved_model.warmup_requests,
    )
  return None if gpu is None else f"signature {gpu_signature.NAME!r} needs a GPU: not compared"


def _trace(module: Any, options: ExportOptions) -> dict[str, Any]:
  """Returns the concrete functions of all signatures by name."""
  from sasa_tf.ops import tracing_for_export

  class_names, default = options.metadata.class_names, options.saved_model.input_type
  kinds = _kinds(module.signature_kinds(class_names), options)
  keys = {kind: kind for kind in (*kinds, default)}
  if options.saved_model.cpu_kernels:
    from sasa_tf.serving.compiled_kernels.signatures import trace_with_kernels

    functions = trace_with_kernels(module, keys, class_names)
  else:
    with tracing_for_export(quantizable=False):
      functions = module.get_inference_signatures(keys, class_names)
  # The default is a second name of a function.
  for suffix in ("", library_file.STOCK_SUFFIX):
    if f"{default}{suffix}" in functions:
      functions[f"serving_default{suffix}"] = functions[f"{default}{suffix}"]
      if default not in kinds:
        del functions[f"{default}{suffix}"]
  return functions


def _kinds(known: Sequence[str], options: ExportOptions) -> Sequence[str]:
  """Returns the kinds of signatures to write, of those that the module has."""
  kinds = known if options.saved_model.signatures is None else options.saved_model.signatures
  if unknown := [kind for kind in kinds if kind not in known]:
    reason = "" if options.metadata.class_names else " The one with class names needs --labels."
    raise UserError(
      f"--signatures must be some of {', '.join(known)}; received {', '.join(unknown)}.{reason}"
    )
  return kinds


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
    signature = gpu_signature(
      module, kernel_format, require_kernels=options.saved_model.require_gpu_kernels
    )
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
