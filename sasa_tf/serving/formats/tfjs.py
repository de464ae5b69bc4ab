"""TensorFlow.js graph models for browsers, converted by tensorflowjs."""

from __future__ import annotations

import pathlib
import tempfile
from typing import TYPE_CHECKING

from sasa_tf.errors import UserError
from sasa_tf.outputs.layout import DirectoryLayout
from sasa_tf.serving.formats.format import ExportFormat, ExportOptions
from sasa_tf.serving.formats.prepared_signature import IMPLEMENTATION_HINT, write_prepared

if TYPE_CHECKING:
  from official.vision.serving import export_base

METADATA = "model_metadata.json"
LAYOUT = DirectoryLayout(
  "an exported TensorFlow.js model of sasa_tf",
  required=("model.json", METADATA),
  files=rf"model\.json|group\d+-shard\d+of\d+\.bin|{METADATA.replace('.', '[.]')}",
  directories=r"(?!)",
)
_CONVERTER = pathlib.Path(__file__).with_name("convert_tfjs.py")
_TIME_LIMIT_SECONDS = 1800


def write(module: export_base.ExportModule, path: pathlib.Path, options: ExportOptions) -> None:
  """Writes an export module as a graph model for `tf.loadGraphModel`.

  The input is `images` float32 [B, H, W, 3], RGB with values from 0 to 255, of the model's input
  size. The outputs are those of the SavedModel's signature `prepared`, by name. Class names,
  preprocessing and outputs are stored in model_metadata.json.

  Args:
    module: export module with restored weights.
    path: existing, empty directory.
    options: of the export.

  Raises:
    UserError: the model contains operations that TensorFlow.js does not support.
  """
  from sasa_tf.serving.child_process import run_child_process, script_command

  # For a batch of 1, detectors use a suppression that TensorFlow.js does not have.
  batch_size = None if module.batch_size == 1 else module.batch_size
  with tempfile.TemporaryDirectory() as directory:
    write_prepared(module, pathlib.Path(directory), batch_size)
    try:
      run_child_process(
        script_command(_CONVERTER, directory, path.absolute()),
        failure="the model cannot be converted to TensorFlow.js",
        time_limit_seconds=_TIME_LIMIT_SECONDS,
        # oneDNN makes TensorFlow fuse operations in a way that TensorFlow.js lacks.
        environment={"TF_ENABLE_ONEDNN_OPTS": "0", "CUDA_VISIBLE_DEVICES": "-1"},
      )
    except UserError as error:
      if "Unsupported Ops" not in str(error):
        raise
      raise UserError(f"{error} {IMPLEMENTATION_HINT}") from error
  (path / METADATA).write_text(options.metadata.to_json(), encoding="utf-8")


FORMAT = ExportFormat(
  name="tfjs",
  file_name="tfjs",
  write=write,
  description="TensorFlow.js model for browsers",
  layout=LAYOUT,
  requires=("tensorflowjs",),
)
