"""Statistics of the boxes of a split, and how the conversion's report presents them."""

import collections
import dataclasses
import os
import pathlib
from collections.abc import Sequence

from sasa_tf.data.detection.boxes import CheckedImage
from sasa_tf.data.tfrecord.image_example import Problem

_MAX_CLASSES_SHOWN = 10
_MAX_PROBLEMS_SHOWN = 5
_MAX_INSTANCES = 100  # Model Garden's default of parser.max_num_instances


@dataclasses.dataclass(frozen=True)
class BoxStats:
  """Statistics of the boxes of a split; the attributes are keys of dataset.json.

  Attributes:
    by_class: {class name: number of boxes}, in the order of the labels, including crowds.
    crowds: number of boxes that are marked as crowds.
    images_without: number of images without boxes.
    most_in_an_image: largest number of boxes in one image.
    problems: {kind: number of invalid annotations}.
  """

  by_class: dict[str, int]
  crowds: int
  images_without: int
  most_in_an_image: int
  problems: dict[str, int]

  def describe_classes(self) -> str:
    """Returns the number of classes, for the report."""
    number = len(self.by_class)
    return f"{number:,} {'class' if number == 1 else 'classes'} and background"

  def report_lines(self, output: str, split: str) -> list[str]:
    """Returns what the report says about the boxes of a split.

    Args:
      output: directory of the data set, with the split's list of problems.
      split: name of the split.
    """
    by_count = sorted(self.by_class.items(), key=lambda item: -item[1])
    classes = [f"{name} {count:,}" for name, count in by_count[:_MAX_CLASSES_SHOWN]]
    if len(by_count) > _MAX_CLASSES_SHOWN:
      others = by_count[_MAX_CLASSES_SHOWN:]
      classes.append(f"{len(others)} others {sum(count for _, count in others):,}")
    total = sum(self.by_class.values())
    lines = [f"{total:,} {'box' if total == 1 else 'boxes'}: {', '.join(classes)}"]
    if self.crowds:
      lines.append(f"crowds among them, which training and evaluation ignore: {self.crowds:,}")
    lines.append(
      f"most boxes in one image: {self.most_in_an_image}; images without boxes: "
      f"{self.images_without:,}"
    )
    if self.most_in_an_image > _MAX_INSTANCES:
      lines.append(
        f"Model Garden reads only the first {_MAX_INSTANCES} boxes of an image: set "
        f"task.train_data.parser.max_num_instances={self.most_in_an_image}"
      )
    if self.problems:
      path = pathlib.Path(output, problems_file_name(split))
      kinds = ", ".join(f"{kind} {count:,}" for kind, count in self.problems.items())
      lines.append(f"Invalid annotations: {kinds} (see {path})")
      first = path.read_text(encoding="utf-8").splitlines()[:_MAX_PROBLEMS_SHOWN]
      lines += [f"  {line}" for line in first]
    return lines

  def experiment_overrides(self, output: str) -> dict[str, str]:
    """Returns {key: value} of the experiment that evaluation on the data set needs."""
    return {"task.annotation_file": os.path.join(output, annotation_file_name("validation"))}


def box_stats(
  images: Sequence[CheckedImage], problems: Sequence[Problem], categories: Sequence[dict]
) -> BoxStats:
  """Counts the boxes and the invalid annotations of a split.

  Args:
    images: the images of the split, at least one.
    problems: the invalid annotations.
    categories: {"id": label, "name": class name} of every class.
  """
  labels = collections.Counter(box.label for image in images for box in image.boxes)
  return BoxStats(
    by_class={category["name"]: labels[category["id"]] for category in categories},
    crowds=sum(box.is_crowd for image in images for box in image.boxes),
    images_without=sum(not image.boxes for image in images),
    most_in_an_image=max(len(image.boxes) for image in images),
    problems=dict(sorted(collections.Counter(problem.kind for problem in problems).items())),
  )


def annotation_file_name(split: str) -> str:
  """Returns the name of the split's COCO annotation file."""
  return f"{split}.json"


def problems_file_name(split: str) -> str:
  """Returns the name of the split's list of invalid annotations."""
  return f"problems-{split}.txt"
