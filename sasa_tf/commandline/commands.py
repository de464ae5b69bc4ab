"""The commands of `sasa` and the programs that they run."""

from __future__ import annotations

import importlib.util
import pathlib
from collections.abc import Sequence
from typing import NamedTuple

from sasa_tf.errors import UserError, did_you_mean


class Command(NamedTuple):
  """A command: `sasa NAME`.

  Attributes:
    module: what `python -m` runs.
    summary: one line for the list of commands.
  """

  module: str
  summary: str

  @property
  def source(self) -> pathlib.Path:
    """The file of the module."""
    spec = importlib.util.find_spec(self.module)
    if spec is None or spec.origin is None:
      raise ModuleNotFoundError(f"{self.module} is not part of this installation.")
    return pathlib.Path(spec.origin)


COMMANDS = {
  "convert": Command("sasa_tf.bin.make_tfrecords", "convert images to the TFRecords of a training"),
  "train": Command("sasa_tf.bin.train", "train and evaluate a model"),
  "export": Command("sasa_tf.bin.export", "export a trained model to one or more formats"),
  "predict": Command("sasa_tf.bin.predict", "run an exported model on image files"),
  "convert-weights": Command(
    "sasa_tf.bin.convert_weights", "start attention models from convolutional weights"
  ),
  "explain": Command("sasa_tf.bin.attention_maps", "write a page of what a model attends to"),
  "profile": Command("sasa_tf.bin.profile_model", "parameters and FLOPs of a model, by layer"),
  "benchmark": Command("sasa_tf.bin.benchmark", "measure speed and memory of attention"),
  "benchmark-input": Command("sasa_tf.bin.benchmark_input", "measure the input pipeline"),
  "scaling": Command("sasa_tf.bin.scaling", "measure training on several GPUs"),
  "study": Command("sasa_tf.bin.study", "compare configurations over several seeds"),
  "report": Command("sasa_tf.bin.report", "curves and a table of trainings"),
  "tpu-check": Command("sasa_tf.bin.tpu_check", "compile a training step for a TPU"),
  "build-kernels": Command("sasa_tf.native.build", "build the compiled kernels"),
  "doctor": Command("sasa_tf.bin.doctor", "check the installation, the kernels and the machine"),
}


def find(name: str) -> Command:
  """Returns a command. Raises `UserError` if there is none of this name."""
  if name in COMMANDS:
    return COMMANDS[name]
  for command, (module, _) in COMMANDS.items():
    if module.rpartition(".")[2] == name:
      raise UserError(f"the command of the program {name} is `sasa {command}`.")
  raise UserError(
    f"sasa has no command {name!r}. {did_you_mean(name, COMMANDS)} `sasa` lists the commands."
  )


def usage(commands: Sequence[str] = tuple(COMMANDS)) -> str:
  """Returns the list of commands."""
  width = max(map(len, commands))
  lines = [f"  {name:{width}}  {COMMANDS[name].summary}" for name in commands]
  return "\n".join(
    [
      "Stand-alone self-attention in vision models.",
      "",
      "usage: sasa COMMAND [FLAGS]",
      "",
      *lines,
      "",
      "sasa COMMAND --helpshort lists the flags of a command, --help explains them.",
      "sasa completion bash|zsh|fish prints the completion of a shell.",
    ]
  )
