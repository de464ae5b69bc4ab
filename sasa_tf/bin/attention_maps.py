"""Writes a page that shows what a trained model attends to in some images.

  python -m sasa_tf.bin.attention_maps --model_dir=runs/digits --output=report.html image.png ...
  python -m sasa_tf.bin.attention_maps --preset=sasa_resnet26_cifar10 --output=report.html \
    image.png ...
  python -m sasa_tf.bin.attention_maps --saved_model=runs/bccd/saved_model --output=report.html \
    image.jpg ...

The page is one HTML file that needs no network: move the query pixel with the mouse, a finger or
the arrow keys to see the window of each layer and head. It also shows the entropy and distance of
each layer, learned relative positions, attention rollout, and the predictions or detections.
"""

from __future__ import annotations

import pathlib

from absl import flags, logging

from sasa_tf.bin import preset_flag, program
from sasa_tf.errors import UserError

FLAGS = flags.FLAGS

flags.adopt_module_key_flags(preset_flag)
flags.DEFINE_string("model_dir", None, "Model directory of a training.")
flags.DEFINE_string(
  "checkpoint_path", None, "With --model_dir: checkpoint, or a directory with one. Default: best."
)
flags.DEFINE_string("saved_model", None, "SavedModel directory, written by export.")
flags.DEFINE_string("output", None, "HTML file to write. Replaces an earlier page.", required=True)
flags.DEFINE_float(
  "score_threshold",
  0.35,
  "Detectors: minimum score of an object.",
  lower_bound=0.0,
  upper_bound=1.0,
)


def main(argv: list[str]) -> None:
  """Writes the page for the images of the command line."""
  images = argv[1:]
  if not images:
    raise UserError("expected paths of images after the flags; received none. See --help.")
  preset_flag.check_alternatives("model_dir", "saved_model")
  if FLAGS.checkpoint_path and not FLAGS.model_dir:
    raise UserError("--checkpoint_path is for --model_dir. Remove the flag.")
  from sasa_tf.outputs.path_checks import check_file

  check_file(FLAGS.output, "output", overwrite=True)  # before anything is loaded

  from sasa_tf.analysis.attention.trained_model import TrainedModel
  from sasa_tf.analysis.explorer.report import write_report

  if not FLAGS["verbosity"].present:
    logging.set_verbosity(logging.ERROR)
  if FLAGS.preset:
    trained = TrainedModel.from_preset(FLAGS.preset)
  elif FLAGS.saved_model:
    trained = TrainedModel.from_saved_model(FLAGS.saved_model)
  else:
    trained = TrainedModel.from_model_dir(FLAGS.model_dir, FLAGS.checkpoint_path)
  write_report(
    trained,
    images,
    FLAGS.output,
    title="/".join(pathlib.Path(FLAGS.preset or FLAGS.saved_model or FLAGS.model_dir).parts[-2:]),
    score_threshold=FLAGS.score_threshold,
    on_image=lambda path: print(f"analyzing {path}", flush=True),
  )
  print(f"wrote {FLAGS.output}")


def run() -> None:
  """Console script."""
  program.run(main, local_inputs=("preset", "saved_model"))


if __name__ == "__main__":
  run()
