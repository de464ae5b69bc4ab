"""Exports a trained model as a SavedModel; `sasa_tf.bin.export` has the other formats too.

  python -m sasa_tf.bin.export_saved_model --model_dir=runs/digits \
    --export_dir=runs/digits/saved_model

Classifiers return `logits` and `probs`. Detectors return `detection_boxes` (in pixels of the
image), `detection_scores`, `detection_classes` and `num_detections`. --litert also writes a LiteRT
(TensorFlow Lite) file.

The experiment and its configuration are read from --model_dir. Pass --experiment, --config_file
and --params_override to replace them.
"""

from __future__ import annotations

import shlex

from absl import flags

from sasa_tf.bin import export_flags, program

FLAGS = flags.FLAGS

flags.adopt_module_key_flags(export_flags)
flags.DEFINE_string(
  "export_dir", None, "SavedModel directory to create, on a local file system.", required=True
)
flags.DEFINE_string(
  "litert",
  None,
  "LiteRT file to write (FILE.tflite) outside of --export_dir, with built-in operations only.",
)


def main(argv: list[str]) -> None:
  """Exports the model that the flags specify."""
  program.check_no_positional_args(argv)
  outputs = {"saved_model": FLAGS.export_dir}
  if FLAGS.litert:
    outputs["litert"] = FLAGS.litert
  outputs = export_flags.versioned(outputs)
  preset = export_flags.find_preset()
  export_flags.check_paths(outputs, {"saved_model": "export_dir", "litert": "litert"})
  export_flags.check_verification(outputs)
  exported, heading, is_detector = export_flags.export(outputs, preset=preset)
  lines = [heading, f"to       {exported[0].path}"]
  if FLAGS.litert:
    lines.append(f"and      {FLAGS.litert}")
  drawing = " --output=DIR" if is_detector else ""
  saved_model = shlex.quote(f"--saved_model={exported[0].path}")
  lines.append(f"next     python -m sasa_tf.bin.predict {saved_model}{drawing} IMAGE...")
  print(*lines, sep="\n")


def run() -> None:
  """Console script."""
  program.run(main, local_inputs=("labels", "preset", "verification_images"))


if __name__ == "__main__":
  run()
