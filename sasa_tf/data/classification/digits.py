"""scikit-learn's handwritten digits to TFRecords: real images without a download."""

import os
import pathlib
from typing import TYPE_CHECKING, NamedTuple

from sasa_tf.data.errors import DatasetError
from sasa_tf.data.preview_images import write_pictures
from sasa_tf.data.tfrecord.sharded_writer import DatasetSummary, plan_split, write_dataset
from sasa_tf.data.tfrecord.splits import hold_out, shuffled

if TYPE_CHECKING:
  from sasa_tf.data.examples import EncodedExample

CLASS_NAMES = tuple("0123456789")
_VALIDATION_FRACTION = 0.2
_SIDE = 8
PICTURES = "pictures"
_OURS = r"\d-\d{4}\.png"


class Digit(NamedTuple):
  """A digit: its number in scikit-learn's order, its label, its 64 grey levels 0..255."""

  index: int
  label: int
  grey_levels: bytes


def convert(
  output: str | os.PathLike, *, pictures: int = 10, seed: int = 0, overwrite: bool = False
) -> DatasetSummary:
  """Converts the 1,797 digits of 8x8 pixels: 1,437 as "train", 360 as "validation".

  Args:
    output: where to write.
    pictures: number of held-out images to write as output/pictures/<label>-<index>.png too, one
      of each class first.
    seed: another seed shuffles and holds out otherwise.
    overwrite: whether to replace finished splits.

  Returns:
    Figures of the splits.

  Raises:
    DatasetError: nothing was written, and why.
  """
  train, validation = divided_digits(seed)
  if not 0 <= pictures <= len(validation):
    raise DatasetError(
      f"--pictures must lie between 0 and the {len(validation)} held-out digits, received "
      f"{pictures}."
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
  chosen = _one_of_each_first(validation)[:pictures]
  write_pictures(
    pathlib.Path(output) / PICTURES, {_filename(digit): _png(digit) for digit in chosen}, _OURS
  )
  return summary


def divided_digits(seed: int) -> tuple[list[Digit], list[Digit]]:
  """Returns the digits of training and the fifth of each class that is held out.

  Raises:
    DatasetError: scikit-learn is not installed.
  """
  return hold_out(load_digits(), _VALIDATION_FRACTION, seed, _filename, lambda digit: digit.label)


def load_digits() -> list[Digit]:
  """Loads the digits in scikit-learn's order.

  Raises:
    DatasetError: scikit-learn is not installed.
  """
  try:
    from sklearn import datasets
  except ImportError as error:
    raise DatasetError(
      "the digits come with scikit-learn, which is not installed: pip install scikit-learn."
    ) from error
  bunch = datasets.load_digits()
  grey_levels = (bunch.images * 255 / 16).round().astype("uint8")
  return [
    Digit(index, int(label), image.tobytes())
    for index, (label, image) in enumerate(zip(bunch.target, grey_levels, strict=True))
  ]


def _filename(digit: Digit) -> str:
  return f"{digit.label}-{digit.index:04d}.png"


def _png(digit: Digit) -> bytes:
  import tensorflow as tf

  return tf.io.encode_png(
    tf.reshape(tf.io.decode_raw(digit.grey_levels, tf.uint8), [_SIDE, _SIDE, 1])
  ).numpy()


def _encode(digit: Digit) -> "EncodedExample":
  from sasa_tf.data.examples import classification_example

  return classification_example(
    _png(digit), digit.label, CLASS_NAMES[digit.label], _filename(digit)
  )


def _one_of_each_first(digits: list[Digit]) -> list[Digit]:
  rounds: dict[int, int] = {}
  turns = []
  for digit in digits:
    rounds[digit.label] = rounds.get(digit.label, -1) + 1
    turns.append((rounds[digit.label], digit.label, digit))
  return [digit for _, _, digit in sorted(turns)]
