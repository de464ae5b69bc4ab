"""Converts images into the TFRecords that training reads.

  python -m sasa_tf.bin.make_tfrecords image_folder --input=DIR --output=DIR
  python -m sasa_tf.bin.make_tfrecords digits --output=DIR

image_folder reads DIR/<class>/.../<image>.{jpg,jpeg,png}. Give it train and validation images one
after the other, with --split=train and --split=validation and the same --output, or have it hold
out some of the images with --validation_fraction.

digits writes scikit-learn's 1,797 handwritten digits of 8x8 pixels: real images, no download.

A split appears in the output directory when it is complete, or not at all.
"""

import inspect
import os
import signal
import sys
from collections.abc import Callable, Sequence
from typing import NamedTuple

from absl import flags

from sasa_tf.bin import program
from sasa_tf.data import digits, image_folder
from sasa_tf.data.errors import DatasetError
from sasa_tf.data.report import conversion_report
from sasa_tf.data.sharded_writer import DatasetSummary
from sasa_tf.data.tensorflow_process import prepare_for_conversion


class Command(NamedTuple):
  """A converter, whose parameters are the subcommand's flags, and the experiment to train then."""

  convert: Callable[..., DatasetSummary]
  experiment: str

  @property
  def parameters(self) -> dict[str, inspect.Parameter]:
    """The flags; those without a default must be given."""
    return dict(inspect.signature(self.convert).parameters)


COMMANDS = {
  "image_folder": Command(image_folder.convert, "sasa_resnet_imagenet"),
  "digits": Command(digits.convert, "sasa_resnet_digits"),
}


def define_flags(values: flags.FlagValues) -> None:
  """Defines the flags of all subcommands."""

  def define(kind, name, default, text, **limits):
    names = [key for key, command in COMMANDS.items() if name in command.parameters]
    scope = "" if len(names) == len(COMMANDS) else f"[{', '.join(names)}] "
    kind(name, default, scope + text, flag_values=values, **limits)

  define(flags.DEFINE_string, "input", None, "Directory with one folder a class.")
  define(flags.DEFINE_string, "output", None, "Directory to write, made where missing.")
  define(flags.DEFINE_string, "split", "train", "Name of the split to write.")
  define(
    flags.DEFINE_float,
    "validation_fraction",
    0.0,
    "Share of every class to hold out as split validation, at least one image of each.",
  )
  define(
    flags.DEFINE_integer, "pictures", 10, "Held-out digits to write as OUTPUT/pictures/*.png too."
  )
  define(flags.DEFINE_integer, "seed", 0, "Another seed shuffles and holds out otherwise.")
  define(flags.DEFINE_integer, "num_shards", 0, "Files a split; 0 for automatic.")
  define(
    flags.DEFINE_integer,
    "num_processes",
    0,
    "Processes at work; 0 for one a core where so many pay off. The output is the same.",
  )
  define(flags.DEFINE_boolean, "strict", False, "Stop at a broken image instead of skipping it.")
  define(flags.DEFINE_boolean, "overwrite", False, "Replace finished splits of the same name.")


def execute(arguments: Sequence[str], values: flags.FlagValues) -> None:
  """Runs a subcommand and prints its report.

  Args:
    arguments: what is left of the command line: the program and the subcommand.
    values: the parsed flags.

  Raises:
    UserError: nothing was written, and why.
  """
  command = _command(arguments)
  settings = _flags_of(command, arguments[1], values)
  try:
    summary = command.convert(**settings)
  except OSError as error:
    raise DatasetError(
      f"the conversion failed: {error}. Mend the cause and start again."
    ) from error
  print(conversion_report(summary, command.experiment))


def _command(arguments: Sequence[str]) -> Command:
  names = ", ".join(COMMANDS)
  if len(arguments) < 2:
    raise DatasetError(f"expected a subcommand, one of: {names}. --help shows the flags.")
  if arguments[1] not in COMMANDS:
    raise DatasetError(f"unknown subcommand {arguments[1]!r}, expected one of: {names}.")
  if len(arguments) > 2:
    raise DatasetError(f"unexpected arguments after the flags: {' '.join(arguments[2:])}.")
  return COMMANDS[arguments[1]]


def _flags_of(command: Command, name: str, values: flags.FlagValues) -> dict[str, object]:
  known = {flag for other in COMMANDS.values() for flag in other.parameters}
  for flag in sorted(known - command.parameters.keys()):
    if values[flag].present:
      raise DatasetError(
        f"--{flag} is no flag of {name}, which has --{', --'.join(command.parameters)}."
      )
  for flag, parameter in command.parameters.items():
    if parameter.default is parameter.empty and not values[flag].value:
      raise DatasetError(f"{name} needs --{flag}.")
  return {flag: values[flag].value for flag in command.parameters}


def main(argv: Sequence[str]) -> None:
  """Runs the subcommand of the command line."""
  prepare_for_conversion()
  try:
    execute(argv, flags.FLAGS)
  except KeyboardInterrupt:
    print("interrupted; nothing of this run is kept.", file=sys.stderr, flush=True)
    # Python's orderly end aborts, loudly, where TensorFlow is half imported.
    os._exit(128 + signal.SIGINT)


def run() -> None:
  """Console script."""
  define_flags(flags.FLAGS)
  program.run(main)


if __name__ == "__main__":
  run()
