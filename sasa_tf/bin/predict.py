"""Classifies images, or detects objects in them, with an exported model.

  python -m sasa_tf.bin.predict --saved_model=runs/digits/saved_model image.png ...
  python -m sasa_tf.bin.predict --saved_model=runs/scenes/saved_model --output=drawn image.jpg ...

The task is that of the model. Detectors print boxes in pixels of the image; --output also draws
them. Images that cannot be read are reported after the others, and the exit status is 2.
"""

from __future__ import annotations

from absl import flags, logging

from sasa_tf.bin import program
from sasa_tf.errors import UserError

FLAGS = flags.FLAGS

flags.DEFINE_string(
  "saved_model", None, "SavedModel directory, as written by export_saved_model.", required=True
)
flags.DEFINE_integer(
  "top_k", None, "Classifiers: number of classes per image. Default: 3.", lower_bound=1
)
flags.DEFINE_float(
  "score_threshold",
  None,
  "Detectors: minimum score of an object. Default: 0.5.",
  lower_bound=0.0,
  upper_bound=1.0,
)
flags.DEFINE_string(
  "output",
  None,
  "Detectors: directory for a PNG file per image with boxes and names. Replaces files of the same "
  "name only if this program drew them.",
)


def main(argv: list[str]) -> None:
  """Runs the model on the images of the command line."""
  images = argv[1:]
  if not images:
    raise UserError("expected paths of images after the flags; received none. See --help.")

  from sasa_tf.serving.clients import client

  if not FLAGS["verbosity"].present:
    # An exported model has no gradients, which makes TensorFlow warn when it is loaded.
    logging.set_verbosity(logging.ERROR)

  lines = client.predict_all(
    FLAGS.saved_model,
    images,
    top_k=FLAGS.top_k,
    score_threshold=FLAGS.score_threshold,
    output=FLAGS.output,
  )
  for line in lines:
    print(line)


def run() -> None:
  """Console script."""
  program.run(main)


if __name__ == "__main__":
  run()
