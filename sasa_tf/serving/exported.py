"""The record of one exported file or directory, for the output of the program and the card."""

from __future__ import annotations

import pathlib
from typing import NamedTuple

from sasa_tf.serving.verification.classification import ClassificationComparison
from sasa_tf.serving.verification.raw_outputs import RawComparison
from sasa_tf.serving.verification.verifier import Verification


class Exported(NamedTuple):
  """An export.

  Attributes:
    format_name: a key of `FORMATS`.
    path: of the file or directory.
    num_bytes: size of the file, or of all files in the directory.
    quantize: value of --quantize.
    verification: numbers of the verification, one line per signature; () if it was not verified.
    summary: the numbers in a few words.
    accuracy: of quantized classifiers before and after, "" if it was not measured.
  """

  format_name: str
  path: pathlib.Path
  num_bytes: int
  quantize: str
  verification: tuple[str, ...]
  summary: str
  accuracy: str


def size_of(path: pathlib.Path) -> int:
  """Returns the bytes of a file, or of all files in a directory."""
  files = path.rglob("*") if path.is_dir() else [path]
  return sum(file.stat().st_size for file in files if file.is_file())


def summary(verification: Verification) -> str:
  """Returns the numbers of a verification in a few words."""
  compared = verification.comparisons
  if isinstance(compared[0], ClassificationComparison):
    same = min(each.same_top_classes for each in compared)
    largest = max(each.probs_difference for each in compared)
    return f"probs within {largest:.1e}, {same}/{compared[0].num_images} top classes"
  if isinstance(compared[0], RawComparison):
    largest = max(each.difference for each in compared)
    return f"outputs within {largest:.1e}, {compared[0].num_images} images"
  precision = min(each.average_precision for each in compared)
  largest = max(each.box_difference for each in compared)
  return f"boxes within {largest:.1e}, AP {precision:.3f}"
