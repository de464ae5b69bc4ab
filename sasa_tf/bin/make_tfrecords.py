"""Converts images into the TFRecords that training reads.

  python -m sasa_tf.bin.make_tfrecords image_folder --input=DIR --output=DIR
  python -m sasa_tf.bin.make_tfrecords digits --output=DIR
  python -m sasa_tf.bin.make_tfrecords voc --input=DIR --output=DIR
  python -m sasa_tf.bin.make_tfrecords coco --input=DIR --annotations=FILE --output=DIR
  python -m sasa_tf.bin.make_tfrecords scenes --output=DIR

For classification:

image_folder reads DIR/<class>/.../<image>.{jpg,jpeg,png}. Give it train and validation images one
after the other, with --split=train and --split=validation and the same --output, or have it hold
out some of the images with --validation_fraction.

digits writes scikit-learn's 1,797 handwritten digits of 8x8 pixels: real images, no download.

For detection; each writes a COCO annotation file <split>.json for the evaluation too:

voc reads Pascal VOC: DIR/Annotations/*.xml, DIR/JPEGImages and, if there, the lists train, val and
test of DIR/ImageSets/Main, which become the splits train, validation and test. Pictures and XML
files may also lie together in DIR, or the XML files in --annotations.

coco reads an instances FILE of COCO and its pictures, one split at a time or with
--validation_fraction. Labels are the file's category ids, or numbered: --category_ids=contiguous.

scenes draws scenes of scikit-learn's digits with their boxes, the same ones for the same --seed.

Boxes with swapped corners, empty ones, ones outside of their picture and other faulty annotations
are left out and listed in problems-<split>.txt, as are boxes partly outside, which are clipped. Up
to a pixel outside is rounding: clipped and not mentioned. Images that are missing, broken or of
another size than their annotation says are left out and listed in skipped-<split>.txt. With
--strict the first of these ends the conversion. Images without boxes are kept.

The first line of labels.txt is then background, so that a line's number, from 0, is the label and
the number of lines is task.model.num_classes.

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

program.require("tqdm")

from sasa_tf.data.classification import digits, image_folder
from sasa_tf.data.conversion_report import conversion_report
from sasa_tf.data.detection import coco, scenes, voc
from sasa_tf.data.errors import DatasetError
from sasa_tf.data.tfrecord.sharded_writer import DatasetSummary
from sasa_tf.data.tfrecord.tensorflow_process import prepare_for_conversion


class Command(NamedTuple):
  """A converter, whose parameters are the subcommand's flags, and the experiment to train then."""

  convert: Callable[..., DatasetSummary]
  experiment: str

  @property
  def parameters(self) -> dict[str, inspect.Parameter]:
    """The flags; those without a default must be given."""
    return dict(inspect.signature(self.convert).parameters)

  def next_split(self, name: str) -> str:
    """The beginning of the command that converts another split."""
    needed = [flag for flag, parameter in self.parameters.items() if not _has_default(parameter)]
    return " ".join([name, *(f"--{flag}=..." for flag in needed if flag != "output")])


COMMANDS = {
  "image_folder": Command(image_folder.convert, "sasa_resnet_imagenet"),
  "digits": Command(digits.convert, "sasa_resnet_digits"),
  "voc": Command(voc.convert, "retinanet_sasa_coco"),
  "coco": Command(coco.convert, "retinanet_sasa_coco"),
  "scenes": Command(scenes.convert, "retinanet_sasa_scenes"),
}


def define_flags(values: flags.FlagValues) -> None:
  """Defines the flags of all subcommands."""

  def define(kind, name, default, text, **limits):
    names = [key for key, command in COMMANDS.items() if name in command.parameters]
    scope = "" if len(names) == len(COMMANDS) else f"[{', '.join(names)}] "
    kind(name, default, scope + text, flag_values=values, **limits)

  define(
    flags.DEFINE_string,
    "input",
    None,
    "Directory of the images: one folder a class for image_folder, a VOC data set for voc.",
  )
  define(
    flags.DEFINE_string,
    "annotations",
    "",
    "COCO's instances file, or the directory of VOC's XML files where it is another than usual.",
  )
  define(flags.DEFINE_string, "output", None, "Directory to write, made where missing.")
  define(
    flags.DEFINE_string,
    "classes",
    "",
    "Classes to convert, labelled in this order unless --category_ids=original: names separated by "
    "commas, or a .txt file of one name a line, such as the labels.txt of another split. All by "
    "default.",
  )
  define(
    flags.DEFINE_string,
    "category_ids",
    "original",
    "Labels: original keeps the category ids of the file (91 classes for COCO, as Model Garden and "
    "the paper have them); contiguous numbers the categories from 1.",
  )
  define(
    flags.DEFINE_string,
    "image_sets",
    "",
    "Lists of ImageSets/Main to convert, as LIST or LIST:SPLIT, separated by commas, for example "
    "trainval:train,test:validation. By default those of train, val:validation and test that are "
    "there.",
  )
  define(
    flags.DEFINE_integer,
    "first_pixel",
    1,
    "Number of the first pixel in the XML files: 1 as in VOC, 0 as some tools count.",
  )
  define(
    flags.DEFINE_string, "split", "train", "Name of the split to write; voc's lists name theirs."
  )
  define(
    flags.DEFINE_float,
    "validation_fraction",
    0.0,
    "Share of every class to hold out as split validation, at least one image of each.",
  )
  define(
    flags.DEFINE_integer,
    "pictures",
    10,
    "Held-out images to write as files in OUTPUT/pictures too.",
  )
  define(flags.DEFINE_integer, "seed", 0, "Another seed shuffles, holds out and draws otherwise.")
  define(flags.DEFINE_integer, "train_images", 2000, "Scenes to draw for split train.")
  define(flags.DEFINE_integer, "validation_images", 200, "Scenes to draw for split validation.")
  define(flags.DEFINE_integer, "size", 128, "Height and width of a scene in pixels.")
  define(flags.DEFINE_string, "image_format", "jpeg", "Format of the scenes: jpeg or png.")
  define(flags.DEFINE_integer, "num_shards", 0, "Files a split; 0 for automatic.")
  define(
    flags.DEFINE_integer,
    "num_processes",
    0,
    "Processes at work; 0 for one a core where so many pay off. The output is the same.",
  )
  define(
    flags.DEFINE_boolean,
    "strict",
    False,
    "Stop at a broken image or a faulty annotation instead of leaving it out.",
  )
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
  print(conversion_report(summary, command.next_split(arguments[1]), command.experiment))


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
    if not _has_default(parameter) and not values[flag].value:
      raise DatasetError(f"{name} needs --{flag}.")
  return {flag: values[flag].value for flag in command.parameters}


def _has_default(parameter: inspect.Parameter) -> bool:
  return parameter.default is not parameter.empty


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
