"""The files beside the shards of a split with boxes: annotations for evaluation, and problems."""

from collections.abc import Sequence
from typing import Any

from sasa_tf.data.detection.annotation_file import write_annotation_file
from sasa_tf.data.detection.boxes import CheckedImage, Problem
from sasa_tf.data.tfrecord.output_directory import OutputDirectory


def annotation_file_name(split: str) -> str:
  """Name of the split's COCO annotation file."""
  return f"{split}.json"


def problems_file_name(split: str) -> str:
  """Name of the file that lists the problems of the split's annotations."""
  return f"problems-{split}.txt"


def box_file_names(split: str) -> list[str]:
  """Names of all files that may be written beside the shards of a split with boxes."""
  return [annotation_file_name(split), problems_file_name(split)]


def stage_box_files(
  directory: OutputDirectory,
  split: str,
  images: Sequence[CheckedImage],
  problems: Sequence[Problem],
  categories: Sequence[dict[str, Any]],
) -> list[str]:
  """Writes the files of a split, without a list of problems where there are none.

  Args:
    directory: where the split is staged.
    split: its name.
    images: its images with their boxes.
    problems: what was wrong with its annotations.
    categories: {"id": label, "name": class name} for every class.

  Returns:
    Names of the files.
  """
  annotations, listing = box_file_names(split)
  write_annotation_file(directory.staged_file(split, annotations), images, categories)
  if not problems:
    return [annotations]
  lines = "".join(f"{problem.message}\n" for problem in problems)
  directory.staged_file(split, listing).write_bytes(lines.encode("utf-8", "backslashreplace"))
  return [annotations, listing]
