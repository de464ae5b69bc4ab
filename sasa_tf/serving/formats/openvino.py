"""OpenVINO models for Intel's processors."""

from __future__ import annotations

import pathlib
import tempfile
from typing import TYPE_CHECKING

from sasa_tf.errors import UserError
from sasa_tf.outputs.layout import DirectoryLayout
from sasa_tf.serving.formats.format import ExportFormat, ExportOptions
from sasa_tf.serving.formats.openvino_loop import image_by_image
from sasa_tf.serving.formats.prepared_signature import IMPLEMENTATION_HINT, write_prepared
from sasa_tf.serving.formats.root_logging import preserved_root_logger

if TYPE_CHECKING:
  from official.vision.serving import export_base

METADATA = "model_metadata.json"
LAYOUT = DirectoryLayout(
  "an exported OpenVINO model of sasa_tf",
  required=("model.xml", "model.bin", METADATA),
  files=rf"model\.(xml|bin)|{METADATA.replace('.', '[.]')}",
  directories=r"(?!)",
)


def write(module: export_base.ExportModule, path: pathlib.Path, options: ExportOptions) -> None:
  """Writes an export module as model.xml and model.bin.

  The input is `images` float32 [B, H, W, 3], RGB with values from 0 to 255, of the model's input
  size. The outputs are those of the SavedModel's signature `prepared`, by name. Class names,
  preprocessing and outputs are stored in `rt_info`, section `model_info`, and in
  model_metadata.json.

  Args:
    module: export module with restored weights.
    path: existing, empty directory.
    options: of the export.

  Raises:
    UserError: the model contains operations that OpenVINO does not support.
  """
  import openvino

  with tempfile.TemporaryDirectory() as directory:
    # The batch is unknown, because only then projections are traced for OpenVINO.
    write_prepared(module, pathlib.Path(directory), None, for_openvino=True)
    try:
      with preserved_root_logger():
        model = openvino.convert_model(directory)
    except openvino.frontend.OpConversionFailure as error:
      raise UserError(
        f"the model cannot be converted to OpenVINO: {_summary(str(error))}. {IMPLEMENTATION_HINT}"
      ) from error
    if module.batch_size is not None:
      model.reshape([module.batch_size, *module.prepared_size, 3])
    elif module.images_at_once(with_kernels=False) == 1:
      model = image_by_image(model)
    for key, value in options.metadata.to_properties().items():
      model.set_rt_info(value, ["model_info", key])
    half = options.quantize == "float16"
    openvino.save_model(model, path / "model.xml", compress_to_fp16=half)
  (path / METADATA).write_text(options.metadata.to_json(), encoding="utf-8")


def _summary(message: str) -> str:
  """Returns the items of the summary in OpenVINO's message, or else its first line."""
  lines = [line.strip() for line in message.splitlines()]
  return "; ".join(line[3:] for line in lines if line.startswith("-- ")) or lines[0]


FORMAT = ExportFormat(
  name="openvino",
  file_name="openvino",
  write=write,
  description="OpenVINO model for Intel's processors",
  layout=LAYOUT,
  quantizations=("none", "float16"),
  requires=("openvino",),
)
