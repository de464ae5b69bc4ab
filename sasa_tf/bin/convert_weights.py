"""Converts weights of convolutional ResNets to a SASAResNet, and models between the Keras versions.

  python -m sasa_tf.bin.convert_weights --source=model_garden --input=runs/r50 --output=presets/r50
  python -m sasa_tf.bin.convert_weights --source=sasa_tf --input=model.keras --output=presets/model

--output is a preset: the models of both Keras versions read it with `from_preset`. Weights are
copied where names and shapes agree: stem, pointwise convolutions, norms and classifier. Attention
takes the place of the 3x3 convolutions of --attention_groups and starts with random weights, so
such a model must be trained further. The program lists these layers.
"""

from __future__ import annotations

import pathlib
from typing import TYPE_CHECKING, Any

from absl import flags

from sasa_tf.bin import program
from sasa_tf.errors import UserError
from sasa_tf.outputs.path_checks import check_local_input, check_local_path

if TYPE_CHECKING:
  from sasa_tf.pretrained.resnet_weights import ResNetWeights

FLAGS = flags.FLAGS

flags.DEFINE_enum(
  "source",
  None,
  ["keras_applications", "model_garden", "sasa_tf"],
  "What --input is: a keras.applications.ResNet50 (.keras, .h5 or .weights.h5), a checkpoint that "
  "Model Garden trained with the backbone resnet, or a .keras file of a SASAResNet or "
  "SASAResNetClassifier that either Keras version saved.",
  required=True,
)
flags.DEFINE_string("input", None, "File or checkpoint to convert.", required=True)
flags.DEFINE_string("output", None, "Directory of the preset to write.", required=True)
flags.DEFINE_string(
  "checkpoint",
  None,
  "Also write a checkpoint with this path, for task.init_checkpoint with "
  "task.init_checkpoint_modules=backbone.",
)
flags.DEFINE_bool("overwrite", False, "Replace the preset and the checkpoint if they exist.")
flags.DEFINE_integer(
  "num_classes", 1000, "Classes of the weights of keras_applications.", 1, 10_000_000
)
flags.DEFINE_enum(
  "preprocessing",
  "caffe",
  ["caffe", "sasa_tf"],
  "Inputs that the weights of keras_applications were trained with: caffe, that of Keras's "
  "ResNet50, is converted to that of SASAResNetClassifier.",
)
flags.DEFINE_float(
  "norm_epsilon",
  1e-5,
  "Epsilon of the batch norms of model_garden, task.model.norm_activation.norm_epsilon.",
  lower_bound=0,
)

# Arguments of SASAResNet; omitted flags mean its defaults.
_MODEL_FLAGS = (
  flags.DEFINE_integer("model_id", 50, "Depth of the model, and of the weights of model_garden."),
  flags.DEFINE_enum("stem", "conv", ["conv", "conv_small", "attention"], "Stem of the model."),
  flags.DEFINE_list(
    "attention_groups",
    ["1", "2", "3", "4"],
    "Stages with attention; --attention_groups= for none.",
  ),
  flags.DEFINE_integer("kernel_size", 7, "Window size of the attention, odd.", 1, 255),
  flags.DEFINE_integer("num_heads", 8, "Number of attention heads.", 1, 1024),
)


def main(argv: list[str]) -> None:
  """Converts the weights and lists what was copied."""
  program.check_no_positional_args(argv)
  output = _check_output()
  if FLAGS.source != "model_garden":  # whose checkpoints TensorFlow reads, also remote ones
    check_local_input(FLAGS.input, "input")
  if FLAGS.source == "sasa_tf":
    from sasa_tf.pretrained.sources import read_model

    model = read_model(FLAGS.input)
  else:
    model = _converted()
  model.save_to_preset(output)
  if FLAGS.checkpoint:
    from sasa_tf.pretrained.backbone_checkpoint import write_backbone_checkpoint

    write_backbone_checkpoint(output, FLAGS.checkpoint)
  print(f"preset      {output}")
  print(f"to load it  sasa_tf.keras.{type(model).__name__}.from_preset({str(output)!r})")
  if FLAGS.checkpoint:
    modules = "task.init_checkpoint_modules=backbone"
    print(f"to train    --params_override=task.init_checkpoint={FLAGS.checkpoint},{modules}")


def _check_output() -> pathlib.Path:
  output = check_local_path(FLAGS.output, "output")
  if output.exists() and not FLAGS.overwrite:
    raise UserError(f"--output={FLAGS.output} exists. Choose another directory, or --overwrite.")
  if FLAGS.checkpoint:
    target = check_local_path(FLAGS.checkpoint, "checkpoint")
    if target.resolve() == output.resolve() or target.is_dir():
      raise UserError(
        f"--checkpoint={FLAGS.checkpoint}: expected the prefix of new files, but it is a directory "
        f"or that of --output. Use {target / 'ckpt'}, for example."
      )
    if pathlib.Path(f"{target}.index").exists() and not FLAGS.overwrite:
      raise UserError(f"--checkpoint={FLAGS.checkpoint} exists. Choose another, or --overwrite.")
  return output


def _read() -> ResNetWeights:
  from sasa_tf.pretrained import sources

  if FLAGS.source == "model_garden":
    return sources.read_model_garden(
      FLAGS.input, model_id=FLAGS.model_id, norm_epsilon=FLAGS.norm_epsilon
    )
  return sources.read_keras_application(
    FLAGS.input,
    num_classes=FLAGS.num_classes,
    caffe_inputs=FLAGS.preprocessing == "caffe",
  )


def _converted() -> Any:
  """Returns a model with the converted weights, and prints what was copied."""
  from sasa_tf import keras as binding
  from sasa_tf.pretrained.transfer import transfer_weights

  weights = _read()
  arguments = {flag.name: flag.value for flag in _MODEL_FLAGS}
  arguments |= {"norm_epsilon": weights.norm_epsilon, "input_shape": (224, 224, 3)}
  try:
    arguments["attention_groups"] = tuple(map(int, filter(None, FLAGS.attention_groups)))
    if weights.num_classes:
      model = binding.SASAResNetClassifier(num_classes=weights.num_classes, **arguments)
    else:
      model = binding.SASAResNet(**arguments)
  except ValueError as error:
    raise UserError(f"the model cannot be built: {error}") from error
  result = transfer_weights(weights, model)
  print(f"copied      {len(result.copied)} weights of {weights.source}")
  for title, names in (("initialized", result.initialized), ("unused", result.unused)):
    if names:
      print(f"{title:11} {', '.join(names)}")
  return model


def run() -> None:
  """Console script."""
  program.run(main)


if __name__ == "__main__":
  run()
