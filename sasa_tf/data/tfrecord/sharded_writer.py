"""Writes splits of a data set as sharded TFRecords: planned, in parallel, atomic.

Generic over the items: a converter brings items and a picklable `encode` that makes an item's
example or raises BrokenImageError. This module and the converters import TensorFlow only where
the encoding happens, so that the parent of worker processes starts at once.
"""

import collections
import dataclasses
import itertools
import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from sasa_tf.data.detection.box_files import box_file_names, stage_box_files
from sasa_tf.data.detection.box_stats import BoxFigures, box_figures
from sasa_tf.data.detection.boxes import Problem
from sasa_tf.data.errors import DatasetError
from sasa_tf.data.labels import check_class_names
from sasa_tf.data.tfrecord.output_directory import opened_output
from sasa_tf.data.tfrecord.progress import ProgressBar
from sasa_tf.data.tfrecord.shard_report import ShardProgress, ShardResult
from sasa_tf.data.tfrecord.workers import automatic_num_processes, run_tasks

if TYPE_CHECKING:
  from sasa_tf.data.examples import EncodedExample

_BYTES_A_SHARD = 128 * 2**20
_LEAST_SHARDS = 8  # Model Garden reads about this many files at once.
_MOST_SHARDS = 1024
_LEAST_ITEMS_A_SHARD = 64


@dataclasses.dataclass(frozen=True)
class SplitPlan:
  """What a split is to hold.

  Attributes:
    items: its items in their final order.
    num_shards: the number of files to divide them among.
    problems: what is known already to be wrong with its annotations.
  """

  items: Sequence[Any]
  num_shards: int
  problems: Sequence[Problem] = ()


@dataclasses.dataclass(frozen=True)
class SplitSummary:
  """Figures of a finished split.

  Attributes:
    examples: number of examples written.
    shards: number of files that they are in.
    classes: number of lines of labels.txt.
    skipped: number of broken images left out.
    formats: {image format: number of examples}.
    boxes: figures of its boxes, None where images have none by nature.
    files: names of the files beside its shards.
  """

  examples: int
  shards: int
  classes: int
  skipped: int
  formats: dict[str, int]
  boxes: BoxFigures | None = None
  files: list[str] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True)
class DatasetSummary:
  """What a conversion wrote, in how many seconds, TensorFlow's start included, and that alone."""

  output: str
  splits: dict[str, SplitSummary]
  seconds: float
  starting_seconds: float


class _ShardTask(NamedTuple):
  path: str
  items: Sequence[Any]
  encode: Callable[[Any], "EncodedExample"]
  strict: bool


def plan_split(name: str, items: Sequence[Any], num_bytes: int, num_shards: int = 0) -> SplitPlan:
  """Checks a split and chooses its number of shards.

  Args:
    name: the split's name: letters, digits and underscores.
    items: its items in their final order.
    num_bytes: size of their images.
    num_shards: number of files; 0 chooses about 128 MiB a file, from 8 to 1024 files of at least
      64 images.

  Returns:
    The plan.

  Raises:
    DatasetError: the name is unfit, there are no items, or fewer items than shards.
  """
  if not re.fullmatch(r"\w+", name, re.ASCII):
    raise DatasetError(f"a split's name must be letters, digits and _, received {name!r}.")
  if not items:
    raise DatasetError(f"split {name!r} would be empty.")
  if num_shards < 0 or num_shards > len(items):
    raise DatasetError(
      f"--num_shards must lie between 1 and the {len(items)} images of split {name!r}, or be 0 "
      f"for automatic, received {num_shards}."
    )
  if not num_shards:
    by_size = min(max(-(-num_bytes // _BYTES_A_SHARD), _LEAST_SHARDS), _MOST_SHARDS)
    num_shards = max(min(by_size, len(items) // _LEAST_ITEMS_A_SHARD), 1)
  return SplitPlan(items, num_shards)


def write_dataset(
  output: str | os.PathLike,
  splits: Mapping[str, SplitPlan],
  class_names: Sequence[str],
  encode: Callable[[Any], "EncodedExample"],
  *,
  categories: Sequence[dict[str, Any]] | None = None,
  num_processes: int = 0,
  strict: bool = False,
  overwrite: bool = False,
) -> DatasetSummary:
  """Writes splits into a directory, all of them or none, with a progress bar.

  The files depend on the splits, class names and `encode` only, not on the number of processes.

  Args:
    output: the directory; may hold other splits with the same classes.
    splits: {split: plan}.
    class_names: class names in the order of their labels.
    encode: picklable; makes an item's example, or raises BrokenImageError to have it skipped.
    categories: {"id": label, "name": class name} for every class of boxes, where `encode` brings
      boxes: a COCO annotation file `<split>.json` is written too.
    num_processes: worker processes; 0 for one a core, where so many pay off; 1 for this process.
    strict: whether a broken image or a faulty annotation is fatal rather than skipped.
    overwrite: whether to replace splits of these names.

  Returns:
    Figures of the splits.

  Raises:
    DatasetError: nothing was written, and why.
  """
  if num_processes < 0:
    raise DatasetError(
      f"--num_processes must be 0 for automatic or more, received {num_processes}."
    )
  check_class_names(class_names)
  start = time.monotonic()
  num_items = sum(len(plan.items) for plan in splits.values())
  files = {name: [] if categories is None else box_file_names(name) for name in splits}
  with opened_output(output, list(splits), class_names, overwrite, files) as directory:
    tasks = [
      _ShardTask(os.fspath(directory.staged_shard(name, index)), items, encode, strict)
      for name, plan in splits.items()
      for index, items in enumerate(_slices(plan))
    ]
    with ProgressBar(num_items) as progress:
      processes = num_processes or automatic_num_processes(num_items)
      results = iter(run_tasks(_write_shard, tasks, processes, progress.advance))
    summaries, skipped = {}, {}
    for name, plan in splits.items():
      of_split = [next(results) for _ in range(plan.num_shards)]
      summaries[name], skipped[name] = _summarize(name, of_split, len(class_names))
      if categories is not None:
        problems = [*plan.problems, *itertools.chain.from_iterable(r.problems for r in of_split)]
        images = [image for result in of_split for image in result.images]
        summaries[name] = dataclasses.replace(
          summaries[name],
          boxes=box_figures(images, problems, categories),
          files=stage_box_files(directory, name, images, problems, categories),
        )
    directory.commit(
      {name: dataclasses.asdict(summary) for name, summary in summaries.items()},
      class_names,
      skipped,
    )
  seconds = time.monotonic() - start
  return DatasetSummary(os.fspath(output), summaries, seconds, progress.starting_seconds)


def _slices(plan: SplitPlan) -> list[Sequence[Any]]:
  bounds = [len(plan.items) * i // plan.num_shards for i in range(plan.num_shards + 1)]
  return [plan.items[start:end] for start, end in itertools.pairwise(bounds)]


def _write_shard(task: _ShardTask, report: Callable[[ShardProgress], None]) -> ShardResult:
  from sasa_tf.data.tfrecord.shard import write_shard

  return write_shard(*task, report)


def _summarize(
  name: str, results: Sequence[ShardResult], num_classes: int
) -> tuple[SplitSummary, list[str]]:
  formats = sum((collections.Counter(result.formats) for result in results), collections.Counter())
  complaints = [complaint for result in results for complaint in result.complaints]
  if not formats:
    raise DatasetError(
      f"split {name!r}: every one of the {len(complaints)} images is broken. The first:\n"
      f"{complaints[0]}"
    )
  examples = formats.total()
  return SplitSummary(
    examples, len(results), num_classes, len(complaints), dict(sorted(formats.items()))
  ), complaints
