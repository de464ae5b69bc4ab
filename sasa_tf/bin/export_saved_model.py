"""Exports a trained model as a SavedModel that takes images.

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
from collections.abc import Sequence

from absl import flags, logging

from sasa_tf.bin import program
from sasa_tf.errors import UserError

FLAGS = flags.FLAGS

flags.DEFINE_string("model_dir", None, "Model directory of the training.")
flags.DEFINE_string(
  "export_dir", None, "SavedModel directory to create, on a local file system.", required=True
)
flags.DEFINE_string(
  "checkpoint_path", None, "Checkpoint, or a directory with one. Default: the best of --model_dir."
)
flags.DEFINE_string("experiment", None, "Experiment. Default: that of --model_dir.")
flags.DEFINE_multi_string("config_file", None, "YAML files that override the experiment.")
flags.DEFINE_string("params_override", None, "YAML string of overrides, applied last.")
flags.DEFINE_string(
  "labels", None, "File of class names, one per line. Default: that of the training data."
)
flags.DEFINE_enum(
  "input_type",
  "image_tensor",
  ["image_tensor", "image_bytes", "tf_example"],
  "Input of serving_default. The other types get signatures with their names.",
)
flags.DEFINE_integer("batch_size", None, "Fixed batch size. Default: dynamic.", lower_bound=1)
flags.DEFINE_list(
  "input_image_size", None, "height,width of the model input. Default: that of the training."
)
flags.DEFINE_string(
  "litert",
  None,
  "LiteRT file to write (FILE.tflite) outside of --export_dir, with built-in operations only.",
)
flags.DEFINE_bool(
  "overwrite",
  False,
  "Replace --export_dir and --litert if they exist: a SavedModel that this program wrote and that "
  "holds no other files, and a LiteRT file. Nothing else is ever replaced.",
)


def main(argv: list[str]) -> None:
  """Exports the model that the flags specify."""
  program.check_no_positional_args(argv)
  _check_paths()

  from sasa_tf import registry_imports  # noqa: F401
  from sasa_tf.configs.retinanet import RetinaNetTask
  from sasa_tf.data.labels import read_labels
  from sasa_tf.serving.export import export_model
  from sasa_tf.training import checks, experiment, results

  if FLAGS.litert and not FLAGS["verbosity"].present:
    # The converter loads a model without gradients, which makes TensorFlow warn.
    logging.set_verbosity(logging.ERROR)

  params = experiment.load_trained_experiment(
    FLAGS.model_dir,
    FLAGS.experiment,
    FLAGS.config_file or (),
    FLAGS.params_override,
    mode="export",
  )
  checkpoint = results.find_checkpoint(FLAGS.checkpoint_path, FLAGS.model_dir, params)
  class_names = (
    read_labels(FLAGS.labels) if FLAGS.labels else checks.read_class_names(params.task.train_data)
  )
  export_model(
    params,
    checkpoint_path=checkpoint,
    export_dir=FLAGS.export_dir,
    class_names=class_names,
    input_type=FLAGS.input_type,
    batch_size=FLAGS.batch_size,
    input_image_size=_image_size(FLAGS.input_image_size or ()),
    litert=FLAGS.litert,
    overwrite=FLAGS.overwrite,
  )
  lines = [f"exported {checkpoint}", f"to       {FLAGS.export_dir}"]
  if FLAGS.litert:
    lines.append(f"and      {FLAGS.litert}")
  drawing = " --output=DIR" if isinstance(params.task, RetinaNetTask) else ""
  saved_model = shlex.quote(f"--saved_model={FLAGS.export_dir}")
  lines.append(f"next     python -m sasa_tf.bin.predict {saved_model}{drawing} IMAGE...")
  print(*lines, sep="\n")


def _check_paths() -> None:
  """Checks the outputs before anything else is loaded, which takes half a minute."""
  from sasa_tf.serving.export_paths import check_export_paths

  inputs = {name: FLAGS[name].value for name in ("model_dir", "checkpoint_path", "labels")}
  inputs |= {f"config_file={file}": file for file in FLAGS.config_file or ()}
  check_export_paths(FLAGS.export_dir, FLAGS.litert, overwrite=FLAGS.overwrite, inputs=inputs)


def _image_size(flag: Sequence[str]) -> list[int]:
  if flag and (len(flag) != 2 or not all(size.isdecimal() and int(size) for size in flag)):
    raise UserError(
      f"--input_image_size must be height,width in pixels; received {','.join(flag)!r}."
    )
  return [int(size) for size in flag]


def run() -> None:
  """Console script."""
  program.run(main)


if __name__ == "__main__":
  run()
