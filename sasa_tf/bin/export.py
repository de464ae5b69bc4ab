"""Exports a trained model to one or more formats.

  python -m sasa_tf.bin.export --model_dir=runs/digits --output_dir=runs/digits/exported \
    --format=saved_model,litert

Each format has a fixed name in --output_dir:

  saved_model  saved_model/   TensorFlow Serving, Triton, Python; for `sasa_tf.bin.predict`
  litert       model.tflite   LiteRT (TensorFlow Lite) on phones and boards
  onnx         model.onnx     ONNX Runtime, Triton and others
  openvino     openvino/      OpenVINO on Intel's processors
  tfjs         tfjs/          TensorFlow.js in browsers
  keras        model.keras    Keras 3, after `import sasa_tf.keras`
  preset       preset/        `from_preset` in Python, and --preset of the programs

Class names and preprocessing are stored in each of them, and model_card.md describes the model.
Each output is compared with the trained model; they appear when all of them are complete.

The experiment and its configuration are read from --model_dir. Pass --experiment, --config_file
and --params_override to replace them. --preset exports the model of a preset instead.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping

from absl import flags

from sasa_tf.bin import export_flags, program
from sasa_tf.errors import UserError
from sasa_tf.serving.formats.format import OnnxOptions

FLAGS = flags.FLAGS

# The columns are not dropped on narrow terminals.
_TABLE_WIDTH = 1000

flags.adopt_module_key_flags(export_flags)
flags.DEFINE_list("format", ["saved_model"], "Formats, separated by commas.")
flags.DEFINE_integer("onnx_opset", 17, "Version of the operations of --format=onnx, 11 to 18.")
flags.DEFINE_enum(
  "quantize",
  "none",
  ["none", "float16", "int8"],
  "float16 stores weights in float16 (litert, onnx, openvino, preset); int8 computes in 8-bit "
  "integers (litert, onnx), calibrated on the training data.",
)
flags.DEFINE_integer(
  "calibration_images", 128, "Number of images for --quantize=int8.", 1, 1_000_000
)
flags.DEFINE_string(
  "output_dir", None, "Directory of the outputs, on a local file system.", required=True
)


def main(argv: list[str]) -> None:
  """Exports the model that the flags specify."""
  program.check_no_positional_args(argv)

  from sasa_tf.reporting.table import Column, Table
  from sasa_tf.serving.compiled_kernels import library_file
  from sasa_tf.serving.export_paths import check_card, paths_in
  from sasa_tf.serving.formats.registry import find_formats

  outputs = paths_in(FLAGS.output_dir, find_formats(FLAGS.format, FLAGS.quantize))
  outputs = export_flags.versioned(outputs)
  preset = export_flags.find_preset()
  export_flags.check_paths(outputs)
  export_flags.check_verification(outputs)
  onnx = _onnx_options(outputs)
  card = check_card(FLAGS.output_dir)
  exported, heading, is_detector = export_flags.export(
    outputs,
    preset=preset,
    quantize=FLAGS.quantize,
    num_calibration_images=FLAGS.calibration_images,
    model_card=card,
    onnx=onnx,
  )
  left = [Column(title, "left") for title in ("format", "output")]
  table = Table([*left, "MB", Column("compared with the trained model", "left")])
  for each in exported:
    table.add_row(each.format_name, str(each.path), f"{each.num_bytes / 1e6:.2f}", each.summary)
  print(heading, "", table.to_text(_TABLE_WIDTH), sep="\n")
  print(*(f"{each.format_name}: {each.accuracy}" for each in exported if each.accuracy), sep="\n")
  print(f"model card  {card}")
  if "saved_model" in outputs:
    if FLAGS.cpu_kernels:
      library = outputs["saved_model"] / library_file.LIBRARY
      print(f"load        tf.load_library({str(library)!r}) before the first call")
    drawing = " --output=DIR" if is_detector else ""
    flag = shlex.quote(f"--saved_model={outputs['saved_model']}")
    print(f"next        python -m sasa_tf.bin.predict {flag}{drawing} IMAGE...")


def _onnx_options(outputs: Mapping[str, object]) -> OnnxOptions:
  from sasa_tf.serving.formats.onnx import check_opset

  if FLAGS["onnx_opset"].present and "onnx" not in outputs:
    raise UserError(
      "--onnx_opset is an option of --format=onnx, which is not among the formats. Add it, or "
      "remove the flag."
    )
  check_opset(FLAGS.onnx_opset, FLAGS.quantize if "onnx" in outputs else "none")
  return OnnxOptions(FLAGS.onnx_opset)


def run() -> None:
  """Console script."""
  program.run(main, local_inputs=("labels", "preset", "verification_images"))


if __name__ == "__main__":
  run()
