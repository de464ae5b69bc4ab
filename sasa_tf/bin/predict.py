"""Prints what is on pictures, by an exported model: their classes, or the objects on them.

  python -m sasa_tf.bin.predict --saved_model=runs/digits/saved_model picture.png ...
  python -m sasa_tf.bin.predict --saved_model=runs/scenes/saved_model --output=drawn picture.jpg ...

The model says which. Of a detector the boxes are printed in pixels of the picture, and with
--output drawn too.
"""

from __future__ import annotations

from absl import flags, logging

from sasa_tf.bin import program
from sasa_tf.errors import UserError

FLAGS = flags.FLAGS

flags.DEFINE_string("saved_model", None, "Directory that export_saved_model wrote.", required=True)
flags.DEFINE_integer(
  "top_k", None, "Classes to print for each picture, 3 by default.", lower_bound=1
)
flags.DEFINE_float(
  "score_threshold",
  None,
  "Detectors: the least score of an object, 0.5 by default.",
  lower_bound=0.0,
  upper_bound=1.0,
)
flags.DEFINE_string(
  "output", None, "Detectors: directory for a PNG file of each picture with boxes and names."
)


def main(argv: list[str]) -> None:
  """Predicts the pictures of the command line."""
  images = argv[1:]
  if not images:
    raise UserError("expected the paths of pictures after the flags; received none. See --help.")

  from sasa_tf.serving import client

  if not FLAGS["verbosity"].present:
    # An exported model has no gradients, of which TensorFlow warns when it is loaded.
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
