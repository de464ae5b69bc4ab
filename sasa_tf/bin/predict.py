"""Prints the most probable classes of pictures, by an exported model.

python -m sasa_tf.bin.predict --saved_model=runs/digits/saved_model picture.png ...
"""

from __future__ import annotations

from absl import flags, logging

from sasa_tf.bin import program
from sasa_tf.errors import UserError

FLAGS = flags.FLAGS

flags.DEFINE_string("saved_model", None, "Directory that export_saved_model wrote.", required=True)
flags.DEFINE_integer("top_k", 3, "How many classes to print for each picture.", lower_bound=1)


def main(argv: list[str]) -> None:
  """Predicts the pictures of the command line."""
  images = argv[1:]
  if not images:
    raise UserError("expected the paths of pictures after the flags; received none. See --help.")

  from sasa_tf.serving import client

  if not FLAGS["verbosity"].present:
    # An exported model has no gradients, of which TensorFlow warns when it is loaded.
    logging.set_verbosity(logging.ERROR)

  print(client.predict_all(FLAGS.saved_model, images, FLAGS.top_k))


def run() -> None:
  """Console script."""
  program.run(main)


if __name__ == "__main__":
  run()
