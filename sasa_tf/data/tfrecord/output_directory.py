"""A directory of finished splits, to which new ones are added whole or not at all.

  labels.txt                        class names
  dataset.json                      {split: figures}, the record of the finished splits
  train-00000-of-00008.tfrecord     the shards
  skipped-train.txt                 what was left out and why, if anything was
  train.json, problems-train.txt    further files of the split, named in its record
  .train.incomplete/                shards of a split being written, and what a kill leaves

A file system cannot rename many files at once, so a kill in the milliseconds of `commit` may leave
final names of a part of the shards. They are then in no dataset.json, the marker in the incomplete
directory tells that they are ours, and the next run removes them.
"""

import contextlib
import fcntl
import json
import os
import pathlib
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sasa_tf.data.errors import DatasetError
from sasa_tf.data.labels import read_labels, write_labels
from sasa_tf.data.tfrecord.signals import ignored_interrupts

LABELS_FILE = "labels.txt"
RECORD_FILE = "dataset.json"
_MARKER = "committing"


class OutputDirectory:
  """The files of a data set. Use `opened_output` to add splits."""

  def __init__(self, path: str | os.PathLike):
    self.path = pathlib.Path(path)

  def records(self) -> dict[str, dict[str, Any]]:
    """Figures of the finished splits, {} where there are none.

    Raises:
      DatasetError: dataset.json cannot be understood.
    """
    path = self.path / RECORD_FILE
    try:
      records = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
      return {}
    except ValueError as error:
      raise DatasetError(
        f"{path} is not the JSON that this program writes ({error}). Choose another --output."
      ) from error
    if not isinstance(records, dict):
      raise DatasetError(f"{path} must hold one JSON object. Choose another --output.")
    return records

  def shards(self, split: str) -> list[pathlib.Path]:
    """The split's files under their final names."""
    name = re.compile(rf"{re.escape(split)}-\d{{5}}-of-\d{{5}}\.tfrecord")
    return sorted(path for path in self.path.iterdir() if name.fullmatch(path.name))

  def staged_shard(self, split: str, index: int) -> pathlib.Path:
    """Where to write a shard before it is committed; the name fits no `<split>-*` pattern."""
    return self._stage(split) / f"{index:05d}"

  def staged_file(self, split: str, name: str) -> pathlib.Path:
    """Where to write a further file of the split before it is committed."""
    return self._stage(split) / name

  def commit(
    self,
    records: Mapping[str, dict[str, Any]],
    class_names: Sequence[str],
    skipped: Mapping[str, Sequence[str]],
  ) -> None:
    """Makes the staged splits the finished ones.

    Args:
      records: {split: figures}; figures["shards"] is the number of staged shards, and
        figures["files"], if there, the names of further staged files.
      class_names: content of labels.txt.
      skipped: {split: complaints}.
    """
    with ignored_interrupts():
      before = self.records()
      for split, record in records.items():
        names = {*_files(record), *_files(before.get(split))}
        self._marker(split).write_bytes(_json(sorted(names)).encode())
      others = {name: record for name, record in before.items() if name not in records}
      if others != before:
        self._replace(RECORD_FILE, _json(others))
      for split, record in records.items():
        for old in self.shards(split):
          old.unlink()
        for index in range(record["shards"]):
          name = f"{split}-{index:05d}-of-{record['shards']:05d}.tfrecord"
          self.staged_shard(split, index).rename(self.path / name)
        for name in _files(before.get(split)):
          (self.path / name).unlink(missing_ok=True)
        for name in _files(record):
          self.staged_file(split, name).rename(self.path / name)
        self._write_skipped(split, skipped[split])
      with self._replacement(LABELS_FILE) as temporary:
        write_labels(temporary, class_names)
      self._replace(RECORD_FILE, _json({**others, **records}))
      for split in records:
        shutil.rmtree(self._stage(split))

  def refuse_finished(self, splits: Sequence[str]) -> None:
    """Raises DatasetError where a split is there already."""
    for split in splits:
      ours = self._marker(split).exists() and split not in self.records()
      if not ours and (split in self.records() or self.shards(split)):
        raise DatasetError(
          f"split {split!r} is finished in {self.path} already. Pass --overwrite to replace it, or "
          "choose another --split or --output."
        )

  def refuse_foreign_files(self, files: Mapping[str, Sequence[str]]) -> None:
    """Raises DatasetError where a file to be written, {split: names}, is not this program's."""
    records = self.records()
    for split, names in files.items():
      for name in sorted({*names} - {*_files(records.get(split)), *self._marked(split)}):
        if (self.path / name).exists():
          raise DatasetError(
            f"{self.path / name} is not of this program and would be overwritten. Move it, or "
            "choose another --output."
          )

  def refuse_other_classes(self, class_names: Sequence[str]) -> None:
    """Raises DatasetError where labels.txt says otherwise."""
    path = self.path / LABELS_FILE
    if not path.exists() or (existing := read_labels(path)) == tuple(class_names):
      return
    raise DatasetError(
      f"the class names differ from those in {path}: {_difference(existing, class_names)}. Every "
      "split must have the same classes: make the class folders equal (an empty folder counts), "
      f"for boxes pass --classes={path}, or choose another --output."
    )

  def stage(self, split: str) -> None:
    """Makes an empty incomplete directory, clearing what a killed run left."""
    self.discard(split)
    self._stage(split).mkdir()

  def discard(self, split: str) -> None:
    """Removes the split's unfinished files; finished ones stay."""
    if self._marker(split).exists() and split not in self.records():
      for path in self.shards(split):
        path.unlink()
      for name in self._marked(split):
        (self.path / name).unlink(missing_ok=True)
    shutil.rmtree(self._stage(split), ignore_errors=True)

  def _stage(self, split: str) -> pathlib.Path:
    return self.path / f".{split}.incomplete"

  def _marker(self, split: str) -> pathlib.Path:
    return self._stage(split) / _MARKER

  def _marked(self, split: str) -> list[str]:
    """The further files that a commit which was killed may have left."""
    try:
      return json.loads(self._marker(split).read_text())
    except (FileNotFoundError, ValueError):  # ValueError: killed before the marker was complete.
      return []

  def _write_skipped(self, split: str, complaints: Sequence[str]) -> None:
    name = f"skipped-{split}.txt"
    if complaints:
      self._replace(name, "".join(f"{complaint}\n" for complaint in complaints))
    else:
      (self.path / name).unlink(missing_ok=True)

  def _replace(self, name: str, text: str) -> None:
    with self._replacement(name) as temporary:
      temporary.write_bytes(text.encode("utf-8", "backslashreplace"))

  @contextlib.contextmanager
  def _replacement(self, name: str) -> Iterator[pathlib.Path]:
    temporary = self.path / f".{name}.incomplete"
    try:
      yield temporary
      os.replace(temporary, self.path / name)
    finally:
      temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def opened_output(
  path: str | os.PathLike,
  splits: Sequence[str],
  class_names: Sequence[str],
  overwrite: bool,
  files: Mapping[str, Sequence[str]] | None = None,
) -> Iterator[OutputDirectory]:
  """Prepares and locks a directory for new splits; without a commit, leaves it as it was.

  Args:
    path: the directory, made where missing.
    splits: splits about to be written.
    class_names: class names in the order of their labels.
    overwrite: whether finished splits of these names may be replaced.
    files: {split: names of files that may be written beside its shards}.

  Yields:
    The directory, with an empty stage for every split.

  Raises:
    DatasetError: the directory cannot be used, is in use, holds a finished split, other classes or
      files of these names that are not of this program.
  """
  output = OutputDirectory(path)
  made = _make(output.path)
  try:
    with _locked(output.path):
      if not overwrite:
        output.refuse_finished(splits)
      output.refuse_foreign_files(files or {})
      if not overwrite or output.records().keys() - set(splits):
        output.refuse_other_classes(class_names)
      try:
        for split in splits:
          output.stage(split)
        yield output
      finally:
        for split in splits:
          output.discard(split)
  finally:
    with contextlib.suppress(OSError):  # A directory that holds something stays.
      for directory in made:
        directory.rmdir()


def _make(path: pathlib.Path) -> list[pathlib.Path]:
  """Makes a directory and its parents; returns those that were missing, innermost first."""
  if re.match(r"\w{2,}:/", os.fspath(path)):  # pathlib has made one slash of two.
    raise DatasetError(f"--output must be a local directory, received {path}. Copy it up after.")
  missing = [d for d in (path, *path.parents) if not d.exists()]
  try:
    path.mkdir(parents=True, exist_ok=True)
  except OSError as error:
    raise DatasetError(
      f"cannot make the output directory {path}: {error.strerror}. Expected a directory, or a path "
      "where one can be made."
    ) from error
  if not os.access(path, os.W_OK | os.X_OK):
    raise DatasetError(f"the output directory {path} is not writable. Choose another --output.")
  return missing


@contextlib.contextmanager
def _locked(path: pathlib.Path) -> Iterator[None]:
  """Holds the directory's lock, which the system releases even after a kill."""
  descriptor = os.open(path, os.O_RDONLY)
  try:
    try:
      fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
      raise DatasetError(
        f"another conversion is writing to {path}. Wait for its end, or choose another --output."
      ) from error
    except OSError:
      pass  # Some network file systems cannot lock directories; two runs at once are rare.
    yield
  finally:
    os.close(descriptor)


def _files(record: Mapping[str, Any] | None) -> list[str]:
  """Names of the files beside the shards of a finished split, or of none."""
  return record.get("files", []) if record else []


def _difference(existing: Sequence[str], received: Sequence[str]) -> str:
  missing = sorted(set(existing) - set(received))
  additional = sorted(set(received) - set(existing))
  parts = []
  if missing:
    parts.append(f"missing now: {_some(missing)}")
  if additional:
    parts.append(f"new: {_some(additional)}")
  return "; ".join(parts) or "the same names in another order"


def _some(names: Sequence[str], limit: int = 10) -> str:
  more = f" and {len(names) - limit} more" if len(names) > limit else ""
  return ", ".join(names[:limit]) + more


def _json(content: Any) -> str:
  return json.dumps(content, indent=2, sort_keys=True) + "\n"
