"""Classifies images, or detects objects in them, with an exported model or a preset.

  python -m sasa_tf.bin.predict --preset=sasa_resnet26_cifar10 image.png ...
  python -m sasa_tf.bin.predict --saved_model=runs/digits/saved_model image.png ...
  python -m sasa_tf.bin.predict --saved_model=runs/scenes/saved_model --output=drawn image.jpg ...

The task is that of the model. Detectors print boxes in pixels of the image; --output also draws
them. Images that cannot be read are reported after the others, and the exit status is 2.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from absl import flags, logging

from sasa_tf.bin import preset_flag, program
from sasa_tf.errors import UserError

if TYPE_CHECKING:
  from sasa_tf.modeling.presets import Preset
  from sasa_tf.serving.clients.encoded_image_model import EncodedImageModel

FLAGS = flags.FLAGS

flags.adopt_module_key_flags(preset_flag)
flags.DEFINE_string("saved_model", None, "SavedModel directory, as written by export.")
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
  preset_flag.check_alternatives("saved_model")
  if FLAGS.output is not None:
    from sasa_tf.outputs.path_checks import check_local_path

    check_local_path(FLAGS.output, "output")
  preset = _find_preset() if FLAGS.preset else None

  from sasa_tf.serving.clients import client
  from sasa_tf.serving.clients.encoded_image_model import EncodedImageModel

  if not FLAGS["verbosity"].present:
    # An exported model has no gradients, which makes TensorFlow warn when it is loaded.
    logging.set_verbosity(logging.ERROR)

  lines = client.predict_all(
    _preset_model(preset) if preset else EncodedImageModel.from_saved_model(FLAGS.saved_model),
    images,
    top_k=FLAGS.top_k,
    score_threshold=FLAGS.score_threshold,
    output=FLAGS.output,
  )
  for line in lines:
    print(line)


def _find_preset() -> Preset:
  """Returns the preset, found before Model Garden is imported, which takes seconds."""
  program.require("official", "tf_keras")
  from sasa_tf.modeling.presets import find_preset

  return find_preset(FLAGS.preset)


def _preset_model(preset: Preset) -> EncodedImageModel:
  from sasa_tf import registry_imports  # noqa: F401
  from sasa_tf.serving.clients.encoded_image_model import EncodedImageModel
  from sasa_tf.serving.restored_module import restored_module
  from sasa_tf.training.experiment import load_preset_experiment

  module = restored_module(load_preset_experiment(preset, mode="export"), preset)
  return EncodedImageModel.from_module(f"--preset={FLAGS.preset}", module, preset.labels)


def run() -> None:
  """Console script."""
  program.run(main, local_inputs=("preset", "saved_model"))


if __name__ == "__main__":
  run()
