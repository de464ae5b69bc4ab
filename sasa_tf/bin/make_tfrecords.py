"""Converts images to the TFRecords that training reads.

  python -m sasa_tf.bin.make_tfrecords image_folder --input=DIR --output=DIR
  python -m sasa_tf.bin.make_tfrecords digits --output=DIR
  python -m sasa_tf.bin.make_tfrecords voc --input=DIR --output=DIR
  python -m sasa_tf.bin.make_tfrecords coco --input=DIR --annotations=FILE --output=DIR
  python -m sasa_tf.bin.make_tfrecords scenes --output=DIR

Classification:

image_folder reads DIR/<class>/.../<image>.{jpg,jpeg,png}. Convert training and validation images
with one command each, with the same --output and --split=train or --split=validation, or hold out
part of the images with --validation_fraction.

digits writes scikit-learn's 1,797 handwritten digits of 8x8 pixels: real images, no download.

Detection; each subcommand also writes a COCO annotation file <split>.json for the evaluation:

voc reads Pascal VOC: DIR/Annotations/*.xml, DIR/JPEGImages and, if they exist, the lists train, val
and test of DIR/ImageSets/Main, which become the splits train, validation and test. Images and XML
files may also be together in DIR, or the XML files in the directory --annotations. Lists may also
hold file names or paths.

coco reads a COCO instances FILE and its images: one split per command, or two with
--validation_fraction. Labels are the category ids of the file; --category_ids=contiguous numbers
them from 1.

scenes generates images of scikit-learn's digits with boxes. Equal --seed gives equal images.

Images with an EXIF orientation are stored upright, without the tag. Boxes are turned with them if
they refer to the stored pixels: if the annotation's height and width are those of the stored pixels
and not of the displayed image. If both or none fit, --exif_boxes decides. The report counts the
images of each case.

Invalid annotations, such as boxes that are empty, have swapped corners or are outside of their
image, are skipped. Boxes partly outside are clipped. Both are listed in problems-<split>.txt. Up to
a pixel outside counts as a rounding error, which is clipped and not listed. Images that are
missing, broken, larger than --max_pixels or of another size than their annotation states are
skipped and listed in skipped-<split>.txt. --verify=full also skips JPEG images that decode although
their data is corrupt. With --strict, the first of these stops the conversion. Images without boxes
are converted too.

Text may be UTF-8, UTF-16 or UTF-32, XML also any encoding that it declares. Hidden files and
folders of systems (__MACOSX, @eaDir, lost+found, ...) are ignored and reported.

For detection, the first line of labels.txt is background. The line number, from 0, is the label,
and the number of lines is task.model.num_classes.

Splits are written atomically: a split in the output directory is always complete.
"""

import inspect
import os
import signal
import sys
from collections.abc import Callable, Sequence
from typing import NamedTuple

from absl import flags

from sasa_tf.bin import program
from sasa_tf.data.classification import digits, image_folder
from sasa_tf.data.conversion_report import conversion_report
from sasa_tf.data.detection import coco, scenes, voc
from sasa_tf.data.errors import DatasetError
from sasa_tf.data.images import options
from sasa_tf.data.tfrecord.sharded_writer import DatasetSummary
from sasa_tf.data.tfrecord.workers import configure_tensorflow
from sasa_tf.outputs.path_checks import check_local_path


class Command(NamedTuple):
  """A subcommand.

  Attributes:
    convert: the converter, whose parameters are the flags of the subcommand.
    experiment: name of an experiment to train.
    is_of_data: whether the experiment is of this very data set, not of any images.
  """

  convert: Callable[..., DatasetSummary]
  experiment: str
  is_of_data: bool = False

  @property
  def parameters(self) -> dict[str, inspect.Parameter]:
    """Flags of the subcommand; those without a default are required."""
    return dict(inspect.signature(self.convert).parameters)

  def next_split(self, name: str) -> str:
    """Returns the start of the command that converts another split."""
    required = [flag for flag, parameter in self.parameters.items() if not _has_default(parameter)]
    return " ".join([name, *(f"--{flag}=..." for flag in required if flag != "output")])


COMMANDS = {
  "image_folder": Command(image_folder.convert, "sasa_resnet_imagenet"),
  "digits": Command(digits.convert, "sasa_resnet_digits", is_of_data=True),
  "voc": Command(voc.convert, "retinanet_sasa_coco"),
  "coco": Command(coco.convert, "retinanet_sasa_coco"),
  "scenes": Command(scenes.convert, "retinanet_sasa_scenes", is_of_data=True),
}


# (definition function, name, default, help text).
_FLAGS = (
  (
    flags.DEFINE_string,
    "input",
    None,
    "Directory of the images: with one folder per class for image_folder, a VOC data set for voc.",
  ),
  (
    flags.DEFINE_string,
    "annotations",
    "",
    "The COCO instances file; for voc, the directory of the XML files if it is not the default.",
  ),
  (flags.DEFINE_string, "output", None, "Directory to write to; created if missing."),
  (
    flags.DEFINE_string,
    "classes",
    "",
    "Classes to convert: comma-separated names, or a .txt file with one name per line, such as the "
    "labels.txt of another split. Their order defines the labels, except with "
    "--category_ids=original. All classes by default.",
  ),
  (
    flags.DEFINE_string,
    "category_ids",
    "original",
    "original: labels are the category ids of the file (COCO: 91 classes, as in Model Garden and "
    "the paper). contiguous: the categories are numbered from 1.",
  ),
  (
    flags.DEFINE_string,
    "image_sets",
    "",
    "Lists of ImageSets/Main to convert, comma-separated, each LIST or LIST:SPLIT. Example: "
    "trainval:train,test:validation. Default: those of train, val:validation and test that exist.",
  ),
  (
    flags.DEFINE_integer,
    "coordinate_origin",
    1,
    "Coordinates of the first pixel in the XML files: 1, as in VOC, or 0.",
  ),
  (
    flags.DEFINE_string,
    "split",
    "train",
    "Name of the split to write. With voc, image sets define the splits.",
  ),
  (
    flags.DEFINE_float,
    "validation_fraction",
    0.0,
    "Fraction of every class to write as split validation, at least one image of each.",
  ),
  (
    flags.DEFINE_string,
    "exif_boxes",
    "displayed",
    "What the boxes of an image with an EXIF orientation refer to if the annotated size does not "
    "decide (square image, mirrored or turned by 180 degrees, no size): displayed, as browsers and "
    "most annotation tools show it, or stored, the pixels as tools show them that ignore EXIF.",
  ),
  (
    flags.DEFINE_integer,
    "max_pixels",
    options.MAX_PIXELS,
    "Images with more pixels (height x width) are skipped without decoding them.",
  ),
  (
    flags.DEFINE_string,
    "verify",
    "decode",
    "decode: skip images that TensorFlow cannot decode, and count those with corrupt data. full: "
    "skip these too, and PNG images whose checksums do not match.",
  ),
  (
    flags.DEFINE_integer,
    "num_preview_images",
    10,
    "Number of validation images to write also as files in OUTPUT/preview_images.",
  ),
  (
    flags.DEFINE_integer,
    "seed",
    0,
    "Seed of the order of the examples, of the choice of validation images and of the scenes.",
  ),
  (flags.DEFINE_integer, "train_images", 2000, "Number of images of split train."),
  (flags.DEFINE_integer, "validation_images", 200, "Number of images of split validation."),
  (flags.DEFINE_integer, "size", 128, "Height and width of the images in pixels."),
  (flags.DEFINE_string, "image_format", "jpeg", "Format of the images: jpeg or png."),
  (flags.DEFINE_integer, "num_shards", 0, "Number of files per split; 0 chooses the number."),
  (
    flags.DEFINE_integer,
    "num_processes",
    0,
    "Number of worker processes; 0 chooses the number. The output does not depend on it.",
  ),
  (
    flags.DEFINE_boolean,
    "strict",
    False,
    "Stop at a broken image or an invalid annotation instead of skipping it.",
  ),
  (flags.DEFINE_boolean, "overwrite", False, "Replace existing splits of the same name."),
)


def define_flags(values: flags.FlagValues) -> None:
  """Defines the flags of all subcommands; help texts name the subcommands that have the flag."""
  for define, name, default, text in _FLAGS:
    names = [key for key, command in COMMANDS.items() if name in command.parameters]
    scope = "" if len(names) == len(COMMANDS) else f"[{', '.join(names)}] "
    define(name, default, scope + text, flag_values=values)


def execute(arguments: Sequence[str], values: flags.FlagValues) -> None:
  """Runs a subcommand and prints its report.

  Args:
    arguments: the program and the subcommand.
    values: the parsed flags.

  Raises:
    UserError: if nothing was written.
  """
  command = _command(arguments)
  settings = _flags_of(command, arguments[1], values)
  try:
    summary = command.convert(**settings)
  except OSError as error:
    raise DatasetError(
      f"the conversion failed: {error}. Fix the cause and run the command again."
    ) from error
  report = conversion_report(
    summary,
    command.next_split(arguments[1]),
    command.experiment,
    only_paths=command.is_of_data,
  )
  print(report)


def _command(arguments: Sequence[str]) -> Command:
  names = ", ".join(COMMANDS)
  if len(arguments) < 2:
    raise DatasetError(f"expected a subcommand, one of: {names}. See --help.")
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
        f"{name} has no flag --{flag}. Its flags: --{', --'.join(command.parameters)}."
      )
  for flag, parameter in command.parameters.items():
    if not _has_default(parameter) and not values[flag].value:
      raise DatasetError(f"{name} requires --{flag}.")
  return {flag: values[flag].value for flag in command.parameters}


def _has_default(parameter: inspect.Parameter) -> bool:
  return parameter.default is not parameter.empty


def main(argv: Sequence[str]) -> None:
  """Runs the subcommand of the command line."""
  configure_tensorflow()
  if flags.FLAGS.output:
    check_local_path(flags.FLAGS.output, "output")
  try:
    execute(argv, flags.FLAGS)
  except KeyboardInterrupt:
    print("interrupted; nothing of this run was saved.", file=sys.stderr, flush=True)
    # Python's regular exit aborts with a stack trace while TensorFlow is being imported.
    os._exit(128 + signal.SIGINT)


def run() -> None:
  """Console script."""
  define_flags(flags.FLAGS)
  program.run(main, local_inputs=("annotations", "classes", "input"))


if __name__ == "__main__":
  run()
