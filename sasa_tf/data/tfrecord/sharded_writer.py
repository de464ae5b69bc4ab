"""Writes the splits of a data set as sharded TFRecords: in parallel, all or nothing.

A converter supplies the items and a picklable function that encodes one. What depends on the kind
of annotation (statistics, files beside the shards) is supplied as `AnnotationHooks`. TensorFlow is
imported only where a shard is written, so that the parent of worker processes starts at once.
"""

import collections
import dataclasses
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from sasa_tf.data.errors import BrokenImageError, DatasetError
from sasa_tf.data.inputs.values import one_line
from sasa_tf.data.labels import check_class_names, similar_names
from sasa_tf.data.tfrecord.image_example import EncodedExample, Problem
from sasa_tf.data.tfrecord.output_directory import OutputDirectory, locked_output_directory
from sasa_tf.data.tfrecord.splits import SplitPlan
from sasa_tf.data.tfrecord.workers import automatic_num_processes, run_tasks
from sasa_tf.reporting import ProgressBar

_SECONDS_BETWEEN_REPORTS = 0.1
_MAX_SKIPPED_SHOWN = 10
_MAX_GROUPS_SHOWN = 10  # of similar class names

Encode = Callable[[Any], EncodedExample]


class AnnotationStats(Protocol):
  """Statistics of the annotations of a split: a dataclass, saved in dataset.json."""

  def describe_classes(self) -> str:
    """Returns the number of classes, for the report."""

  def report_lines(self, output: str, split: str) -> list[str]:
    """Returns what the report says about the split's annotations."""

  def experiment_overrides(self, output: str) -> dict[str, str]:
    """Returns {key: value} of the experiment that training on the data set needs."""


class AnnotationHooks(Protocol):
  """Collects the annotations of a split."""

  def file_names(self, split: str) -> list[str]:
    """Returns the names of all files that may be written beside the split's shards."""

  def write_files(
    self,
    directory: OutputDirectory,
    split: str,
    annotations: Sequence[Any],
    problems: Sequence[Problem],
  ) -> list[str]:
    """Writes files beside the split's shards to `directory.staged_file`; returns their names."""

  def stats(self, annotations: Sequence[Any], problems: Sequence[Problem]) -> AnnotationStats:
    """Returns the statistics of a split."""

  def check(self, stats: Sequence[Any], problems: Sequence[Problem]) -> None:
    """Raises `DatasetError` if the data set is of no use.

    Args:
      stats: the statistics of all splits.
      problems: the invalid annotations of all splits.
    """


@dataclasses.dataclass(frozen=True)
class SplitSummary:
  """Statistics of a finished split.

  Attributes:
    examples: number of examples.
    shards: number of files.
    classes: number of lines of labels.txt.
    skipped: number of broken images, which were skipped.
    formats: {image format: number of examples}.
    annotation_stats: what the `AnnotationHooks` returned, None without hooks.
    files: names of the files beside the shards.
    notes: {name of `images.notes`: number of images}.
  """

  examples: int
  shards: int
  classes: int
  skipped: int
  formats: dict[str, int]
  annotation_stats: AnnotationStats | None = None
  files: list[str] = dataclasses.field(default_factory=list)
  notes: dict[str, int] = dataclasses.field(default_factory=dict)

  def to_record(self) -> dict[str, Any]:
    """Returns the split's entry of dataset.json."""
    record = dataclasses.asdict(self)
    record["boxes"] = record.pop("annotation_stats")  # The format's key for annotations.
    return record


@dataclasses.dataclass(frozen=True)
class DatasetSummary:
  """What a conversion wrote.

  Attributes:
    output: the directory.
    splits: {split: statistics}.
    seconds: duration of the conversion.
    startup_seconds: part of it until TensorFlow was imported.
  """

  output: str
  splits: dict[str, SplitSummary]
  seconds: float
  startup_seconds: float


class ShardTask(NamedTuple):
  """A shard to write: its path, its items in order, how to encode one, and --strict."""

  path: str
  items: Sequence[Any]
  encode: Encode
  strict: bool


class ShardProgress(NamedTuple):
  """Number of items finished since the last report, and why some of them were skipped.

  The first report of a shard has no items; it says that TensorFlow has been imported.
  """

  items: int
  skipped: list[str]


class ShardResult(NamedTuple):
  """What became of the items of a shard, in order.

  Attributes:
    formats: {image format: number of examples}.
    skipped: why items were skipped, one line each.
    problems: invalid annotations of the examples.
    annotations: the annotations of the examples that have any.
    notes: {name of `images.notes`: number of examples}.
  """

  formats: dict[str, int]
  skipped: list[str]
  problems: list[Problem]
  annotations: list[Any]
  notes: dict[str, int]


def write_dataset(
  output: str | os.PathLike,
  splits: Mapping[str, SplitPlan],
  class_names: Sequence[str],
  encode: Encode,
  *,
  hooks: AnnotationHooks | None = None,
  num_processes: int = 0,
  strict: bool = False,
  overwrite: bool = False,
) -> DatasetSummary:
  """Writes splits into a directory, all or none of them, with a progress bar.

  The files depend only on the splits, the class names and `encode`, not on the number of processes.

  Args:
    output: the directory; may contain other splits with the same classes.
    splits: {split: plan}.
    class_names: class names in the order of their labels.
    encode: picklable; encodes an item, or raises BrokenImageError to skip it.
    hooks: collects the annotations, if `encode` returns any.
    num_processes: worker processes; 0 chooses the number, 1 writes in this process.
    strict: whether to stop at a broken image or an invalid annotation instead of skipping it.
    overwrite: whether to replace finished splits of these names.

  Returns:
    Statistics of the splits.

  Raises:
    DatasetError: if nothing was written.
  """
  if num_processes < 0:
    raise DatasetError(
      f"--num_processes must be positive, or 0 to choose automatically, received {num_processes}."
    )
  check_class_names(class_names)
  if groups := similar_names(class_names):
    names = "; ".join(", ".join(map(ascii, group)) for group in groups[:_MAX_GROUPS_SHOWN])
    more = f" and {len(groups) - _MAX_GROUPS_SHOWN} more" if groups[_MAX_GROUPS_SHOWN:] else ""
    print(
      f"Warning: classes that differ only in case or Unicode normalization: {names}{more}. If they "
      "are one class, rename them.",
      file=sys.stderr,
    )
  start = time.monotonic()
  num_items = sum(len(plan.items) for plan in splits.values())
  files = {name: hooks.file_names(name) if hooks else [] for name in splits}
  with locked_output_directory(output, list(splits), class_names, overwrite, files) as directory:
    tasks = [
      ShardTask(os.fspath(directory.staged_shard(name, index)), items, encode, strict)
      for name, plan in splits.items()
      for index, items in enumerate(plan.shards())
    ]
    with _ConversionProgress(num_items) as progress:
      processes = num_processes or automatic_num_processes(num_items)
      results = iter(run_tasks(write_shard, tasks, processes, progress.update))
    summaries, skipped = {}, {}
    problems: list[Problem] = []
    for name, plan in splits.items():
      shards = [next(results) for _ in range(plan.num_shards)]
      skipped[name] = [reason for shard in shards for reason in shard.skipped]
      summaries[name] = _summarize(name, shards, len(class_names))
      if hooks:
        summaries[name] = _apply_hooks(hooks, directory, name, plan, shards, summaries[name])
        problems += _problems(plan, shards)
    if hooks:
      hooks.check([summary.annotation_stats for summary in summaries.values()], problems)
    records = {name: summary.to_record() for name, summary in summaries.items()}
    directory.commit(records, class_names, skipped)
  seconds = time.monotonic() - start
  return DatasetSummary(os.fspath(output), summaries, seconds, progress.startup_seconds)


def write_shard(task: ShardTask, report: Callable[[ShardProgress], None]) -> ShardResult:
  """Writes one shard, skipping the items that `encode` finds broken.

  Args:
    task: the shard.
    report: receives the progress several times per second.

  Returns:
    What was written and what was skipped.

  Raises:
    DatasetError: if the file cannot be written, or if an item or an annotation is invalid and
      `task.strict` is set.
  """
  import tensorflow as tf

  report(ShardProgress(0, []))
  formats: collections.Counter[str] = collections.Counter()
  notes: collections.Counter[str] = collections.Counter()
  result = ShardResult({}, [], [], [], {})
  num_finished, num_reported, last_report = 0, 0, time.monotonic()
  try:
    with tf.io.TFRecordWriter(task.path) as writer:
      for item in task.items:
        try:
          example = task.encode(item)
          if task.strict and example.problems:
            raise example.problems[0].as_error()
          writer.write(example.serialized)
          formats[example.image_format] += 1
          notes.update(example.notes)
          result.problems.extend(example.problems)
          if example.annotations is not None:
            result.annotations.append(example.annotations)
        except BrokenImageError as error:
          if task.strict:
            raise DatasetError(
              f"{error}\nFix or remove the image, or omit --strict to skip it."
            ) from error
          result.skipped.append(one_line(str(error)))
        num_finished += 1
        if time.monotonic() - last_report > _SECONDS_BETWEEN_REPORTS:
          report(ShardProgress(num_finished, result.skipped[num_reported:]))
          num_finished, num_reported, last_report = 0, len(result.skipped), time.monotonic()
  except tf.errors.OpError as error:
    raise DatasetError(
      f"cannot write a shard: {error.message}. Nothing of this run was saved."
    ) from error
  report(ShardProgress(num_finished, result.skipped[num_reported:]))
  return result._replace(formats=dict(formats), notes=dict(notes))


def _summarize(name: str, shards: Sequence[ShardResult], num_classes: int) -> SplitSummary:
  formats = sum((collections.Counter(shard.formats) for shard in shards), collections.Counter())
  skipped = [reason for shard in shards for reason in shard.skipped]
  if not formats:
    raise DatasetError(
      f"split {name!r}: all {len(skipped)} images are broken. The first:\n{skipped[0]}"
    )
  notes = sum((collections.Counter(shard.notes) for shard in shards), collections.Counter())
  return SplitSummary(
    formats.total(),
    len(shards),
    num_classes,
    len(skipped),
    dict(sorted(formats.items())),
    notes=dict(sorted(notes.items())),
  )


def _apply_hooks(
  hooks: AnnotationHooks,
  directory: OutputDirectory,
  name: str,
  plan: SplitPlan,
  shards: Sequence[ShardResult],
  summary: SplitSummary,
) -> SplitSummary:
  """Writes the files beside the shards and adds the statistics to the summary."""
  annotations = [each for shard in shards for each in shard.annotations]
  problems = _problems(plan, shards)
  return dataclasses.replace(
    summary,
    annotation_stats=hooks.stats(annotations, problems),
    files=hooks.write_files(directory, name, annotations, problems),
  )


def _problems(plan: SplitPlan, shards: Sequence[ShardResult]) -> list[Problem]:
  return [*plan.problems, *(each for shard in shards for each in shard.problems)]


class _ConversionProgress:
  """The progress bar, with the reasons of the first skipped images above it.

  Attributes:
    startup_seconds: time from the creation to the first report.
  """

  def __init__(self, num_items: int):
    self.startup_seconds = 0.0
    self._num_skipped = 0
    self._created = time.monotonic()
    self._bar = ProgressBar(
      num_items, "Starting TensorFlow", unit="image", seconds_between_lines=30
    )

  def __enter__(self) -> "_ConversionProgress":
    return self

  def __exit__(self, *_: object) -> None:
    self._bar.close()

  def update(self, progress: ShardProgress) -> None:
    """Shows what a worker reported."""
    if not self.startup_seconds:
      self.startup_seconds = time.monotonic() - self._created
      self._bar.restart_timer()
      self._bar.set_description("Converting")
    for reason in progress.skipped:
      self._num_skipped += 1
      if self._num_skipped <= _MAX_SKIPPED_SHOWN:
        self._bar.write(f"Skipped {reason}")
    self._bar.advance(progress.items)
