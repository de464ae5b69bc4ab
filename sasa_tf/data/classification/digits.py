"""Converts scikit-learn's handwritten digits to TFRecords: real images without a download."""

import os
from typing import NamedTuple

from sasa_tf import extras
from sasa_tf.data.classification.examples import classification_example
from sasa_tf.data.errors import DatasetError
from sasa_tf.data.preview_images import write_preview_images
from sasa_tf.data.tfrecord.image_example import EncodedExample
from sasa_tf.data.tfrecord.sharded_writer import DatasetSummary, write_dataset
from sasa_tf.data.tfrecord.splits import hold_out, plan_split, shuffled

CLASS_NAMES = tuple("0123456789")
_VALIDATION_FRACTION = 0.2
_SIDE = 8
_PREVIEW_FILES = r"\d-\d{4}\.png"


class Digit(NamedTuple):
  """A digit: its index in scikit-learn's data, its label and its 64 gray levels, uint8."""

  index: int
  label: int
  gray_levels: bytes


def convert(
  output: str | os.PathLike,
  *,
  num_preview_images: int = 10,
  seed: int = 0,
  overwrite: bool = False,
) -> DatasetSummary:
  """Converts the 1,797 digits of 8x8 pixels: 1,437 as "train", 360 as "validation".

  Args:
    output: the directory to write to.
    num_preview_images: number of validation images to write also as
      output/preview_images/<label>-<index>.png, starting with one of each class.
    seed: determines the order of the examples and which images are held out.
    overwrite: whether to replace finished splits.

  Returns:
    Statistics of the splits.

  Raises:
    DatasetError: if nothing was written.
  """
  train, validation = train_and_validation_digits(seed)
  if not 0 <= num_preview_images <= len(validation):
    raise DatasetError(
      f"--num_preview_images must be between 0 and the {len(validation)} validation images, "
      f"received {num_preview_images}."
    )
  summary = write_dataset(
    output,
    {
      name: plan_split(name, shuffled(members, seed, _filename), len(members) * _SIDE**2)
      for name, members in {"train": train, "validation": validation}.items()
    },
    CLASS_NAMES,
    _encode,
    num_processes=1,
    overwrite=overwrite,
  )
  preview = _alternating_classes(validation)[:num_preview_images]
  write_preview_images(output, {_filename(digit): _png(digit) for digit in preview}, _PREVIEW_FILES)
  return summary


def train_and_validation_digits(seed: int) -> tuple[list[Digit], list[Digit]]:
  """Returns the training digits, and the fifth of each class that is held out.

  Raises:
    MissingExtraError: if scikit-learn is not installed.
  """
  return hold_out(load_digits(), _VALIDATION_FRACTION, seed, _filename, lambda digit: digit.label)


def load_digits() -> list[Digit]:
  """Loads the digits in scikit-learn's order.

  Raises:
    MissingExtraError: if scikit-learn is not installed.
  """
  extras.require("the digits", "sklearn")
  from sklearn import datasets

  bunch = datasets.load_digits()
  gray_levels = (bunch.images * 255 / 16).round().astype("uint8")
  return [
    Digit(index, int(label), image.tobytes())
    for index, (label, image) in enumerate(zip(bunch.target, gray_levels, strict=True))
  ]


def _filename(digit: Digit) -> str:
  return f"{digit.label}-{digit.index:04d}.png"


def _png(digit: Digit) -> bytes:
  import tensorflow as tf

  return tf.io.encode_png(
    tf.reshape(tf.io.decode_raw(digit.gray_levels, tf.uint8), [_SIDE, _SIDE, 1])
  ).numpy()


def _encode(digit: Digit) -> EncodedExample:
  return classification_example(
    _png(digit), digit.label, CLASS_NAMES[digit.label], _filename(digit)
  )


def _alternating_classes(digits: list[Digit]) -> list[Digit]:
  """Returns the first digit of each class, then the second of each, and so on."""
  num_seen: dict[int, int] = {}
  ranked = []
  for digit in digits:
    num_seen[digit.label] = num_seen.get(digit.label, 0) + 1
    ranked.append((num_seen[digit.label], digit.label, digit))
  return [digit for _, _, digit in sorted(ranked)]
