"""An output directory of finished splits, to which new splits are added atomically.

  labels.txt                        class names
  dataset.json                      {split: statistics} of the finished splits
  train-00000-of-00008.tfrecord     the shards
  skipped-train.txt                 skipped images and the reasons, if there are any
  train.json, problems-train.txt    further files of the split, listed in dataset.json
  .train.incomplete/                shards of a split being written, or of a killed run
  .committing.json                  while complete splits get their final names

A file system cannot rename several files atomically. Before the first rename, .committing.json
therefore lists all of them. If it exists, the next run completes the renames, so that a kill leaves
either the old splits or the new ones.
"""

import contextlib
import fcntl
import json
import os
import pathlib
import re
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sasa_tf.data.errors import DatasetError
from sasa_tf.data.inputs.json_files import read_json
from sasa_tf.data.inputs.text_files import TextError
from sasa_tf.data.labels import read_labels, write_labels
from sasa_tf.data.tfrecord.workers import ignored_sigint

LABELS_FILE = "labels.txt"
RECORD_FILE = "dataset.json"
# Exists while the files of a split are a mixture of old and new ones.
COMMIT_FILE = ".committing.json"


class OutputDirectory:
  """The files of a data set. Use `locked_output_directory` to add splits."""

  def __init__(self, path: str | os.PathLike):
    self.path = pathlib.Path(path)

  def records(self) -> dict[str, dict[str, Any]]:
    """Returns {split: statistics} of the finished splits.

    Raises:
      DatasetError: if dataset.json is invalid.
    """
    records = self._read_json(RECORD_FILE)
    for split, record in records.items():
      if not _is_plain(split) or not isinstance(record, dict) or not _has_plain_files(record):
        raise DatasetError(
          f"{self.path / RECORD_FILE}: expected the statistics of split {split!r}, with names of "
          "files in this directory. Restore the file, or choose another --output."
        )
    return records

  def shards(self, split: str) -> list[pathlib.Path]:
    """Returns the shards of a finished split."""
    name = re.compile(rf"{re.escape(split)}-\d{{5}}-of-\d{{5}}\.tfrecord")
    return sorted(path for path in self.path.iterdir() if name.fullmatch(path.name))

  def staged_shard(self, split: str, index: int) -> pathlib.Path:
    """Returns where to write a shard before the commit; the name matches no `<split>-*`."""
    return self._stage(split) / f"{index:05d}"

  def staged_file(self, split: str, name: str) -> pathlib.Path:
    """Returns where to write a further file of the split before the commit."""
    return self._stage(split) / name

  def commit(
    self,
    records: Mapping[str, dict[str, Any]],
    class_names: Sequence[str],
    skipped: Mapping[str, Sequence[str]],
  ) -> None:
    """Moves the staged splits to their final names.

    Args:
      records: {split: statistics}; statistics["shards"] is the number of staged shards,
        statistics["files"], if present, the names of further staged files.
      class_names: content of labels.txt.
      skipped: {split: reasons of the skipped images}.
    """
    for split, record in records.items():
      for staged, _ in self._moves(split, record):
        staged.stat()  # all are written before the first one is moved
    before = self.records()
    obsolete = [
      name
      for split in records
      for name in (*(path.name for path in self.shards(split)), *_files(before.get(split)))
    ]
    commit = {
      "records": dict(records),
      "class_names": list(class_names),
      "skipped": {split: list(skipped[split]) for split in records},
      "obsolete": obsolete,
    }
    with ignored_sigint():
      self._replace(COMMIT_FILE, _json(commit))
      self._complete(commit)

  def recover(self) -> None:
    """Completes the commit of a run that was killed.

    Raises:
      DatasetError: if files of the commit are missing.
    """
    if not (self.path / COMMIT_FILE).exists():
      return
    commit = self._read_json(COMMIT_FILE)
    try:
      records, class_names = commit["records"], commit["class_names"]
      valid = (
        _has_plain_files({"files": [*records, *commit["obsolete"]]})
        and all(map(_has_plain_files, records.values()))
        and all(isinstance(reason, str) for split in records for reason in commit["skipped"][split])
        and all(isinstance(name, str) for name in class_names)
      )
      missing = [
        final
        for split, record in records.items()
        for staged, final in self._moves(split, record)
        if not staged.exists() and not final.exists()
      ]
    except (AttributeError, KeyError, TypeError):
      valid, missing = False, []
    if not valid or missing:
      problem = f"{missing[0]} is missing" if missing else "it is not what a conversion writes"
      raise DatasetError(
        f"{self.path / COMMIT_FILE} is of a conversion that was killed, and cannot be completed: "
        f"{problem}. Convert the images to another --output."
      )
    with ignored_sigint():
      self._complete(commit)
    print(
      f"completed the conversion of {', '.join(records)} in {self.path}, which was interrupted",
      file=sys.stderr,
      flush=True,
    )

  def _complete(self, commit: Mapping[str, Any]) -> None:
    """Performs the changes of a commit that have not been made yet."""
    records = commit["records"]
    current = set()
    for split, record in records.items():
      for staged, final in self._moves(split, record):
        current.add(final.name)
        if staged.exists():
          os.replace(staged, final)
      self._write_skipped(split, commit["skipped"][split])
    for name in commit["obsolete"]:
      if name not in current:
        (self.path / name).unlink(missing_ok=True)
    with self._replacement(LABELS_FILE) as temporary:
      write_labels(temporary, commit["class_names"])
    self._replace(RECORD_FILE, _json({**self.records(), **records}))
    (self.path / COMMIT_FILE).unlink()
    for split in records:
      _remove_stage(self._stage(split))

  def _moves(
    self, split: str, record: Mapping[str, Any]
  ) -> Iterator[tuple[pathlib.Path, pathlib.Path]]:
    """Yields (staged path, final path) of the files of a split."""
    for index in range(record["shards"]):
      name = f"{split}-{index:05d}-of-{record['shards']:05d}.tfrecord"
      yield self.staged_shard(split, index), self.path / name
    for name in _files(record):
      yield self.staged_file(split, name), self.path / name

  def check_splits(self, splits: Sequence[str], overwrite: bool) -> None:
    """Raises DatasetError if a split exists and may not be replaced."""
    records = self.records()
    for split in splits:
      if split in records and not overwrite:
        raise DatasetError(
          f"split {split!r} already exists in {self.path}. Pass --overwrite to replace it, or "
          "choose another --split or --output."
        )
      if split not in records and (shards := self.shards(split)):
        raise DatasetError(
          f"{shards[0]} was not written by this program ({RECORD_FILE} does not list the split "
          f"{split!r}) and would be replaced. Move it, or choose another --split or --output."
        )

  def check_no_foreign_files(self, files: Mapping[str, Sequence[str]]) -> None:
    """Raises DatasetError if {split: file names} contains a file that no conversion wrote."""
    records = self.records()
    for split, names in files.items():
      own = {*_files(records.get(split)), *([_skipped_file(split)] if split in records else [])}
      for name in sorted({*names, _skipped_file(split)} - own):
        if os.path.lexists(self.path / name):
          raise DatasetError(
            f"{self.path / name} was not written by this program and would be overwritten. "
            "Move it, or choose another --output."
          )

  def check_same_classes(self, class_names: Sequence[str]) -> None:
    """Raises DatasetError if labels.txt lists other classes."""
    path = self.path / LABELS_FILE
    if not path.exists() or (existing := read_labels(path)) == tuple(class_names):
      return
    raise DatasetError(
      f"the class names differ from those in {path}: {_difference(existing, class_names)}. All "
      "splits must have the same classes. For image folders, create the missing class folders "
      f"(they may be empty); for boxes, pass --classes={path}; or choose another --output."
    )

  def stage(self, split: str) -> None:
    """Creates an empty incomplete directory, after removing that of a killed run."""
    self.discard(split)
    self._stage(split).mkdir()

  def discard(self, split: str) -> None:
    """Removes the files of an unfinished split; those of a finished one remain."""
    if not (self.path / COMMIT_FILE).exists():  # otherwise, the next run completes the commit
      _remove_stage(self._stage(split))

  def _stage(self, split: str) -> pathlib.Path:
    return self.path / f".{split}.incomplete"

  def _read_json(self, name: str) -> dict[str, Any]:
    """Returns the object in a JSON file, {} if there is no file."""
    path = self.path / name
    try:
      content = read_json(path)
    except FileNotFoundError:
      return {}
    except TextError as error:
      raise DatasetError(f"{path}: {error}. Choose another --output.") from error
    if not isinstance(content, dict):
      raise DatasetError(f"{path} must hold one JSON object. Choose another --output.")
    return content

  def _write_skipped(self, split: str, reasons: Sequence[str]) -> None:
    name = _skipped_file(split)
    if reasons:
      self._replace(name, "".join(f"{reason}\n" for reason in reasons))
    else:
      (self.path / name).unlink(missing_ok=True)

  def _replace(self, name: str, text: str) -> None:
    with self._replacement(name) as temporary:
      temporary.write_bytes(text.encode("utf-8", "backslashreplace"))

  @contextlib.contextmanager
  def _replacement(self, name: str) -> Iterator[pathlib.Path]:
    temporary = self.path / f".{name}.incomplete"
    temporary.unlink(missing_ok=True)  # it may be a link
    try:
      yield temporary
      os.replace(temporary, self.path / name)
    finally:
      temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def locked_output_directory(
  path: str | os.PathLike,
  splits: Sequence[str],
  class_names: Sequence[str],
  overwrite: bool,
  files: Mapping[str, Sequence[str]] | None = None,
) -> Iterator[OutputDirectory]:
  """Locks a directory and prepares it for new splits; restores it if nothing is committed.

  Args:
    path: the directory, created if missing.
    splits: names of the splits to write.
    class_names: class names in the order of their labels.
    overwrite: whether finished splits of these names may be replaced.
    files: {split: names of files that may be written beside its shards}.

  Yields:
    The directory, with an empty incomplete directory for every split.

  Raises:
    DatasetError: if the directory cannot be used, is in use, or contains one of the splits, other
      classes, or files of these names that no conversion wrote.
  """
  output = OutputDirectory(path)
  created = _create(output.path)
  try:
    with _locked(output.path):
      output.recover()
      output.check_splits(splits, overwrite)
      output.check_no_foreign_files({split: (files or {}).get(split, ()) for split in splits})
      records = output.records()
      if not overwrite or not records or records.keys() - set(splits):
        output.check_same_classes(class_names)
      try:
        for split in splits:
          output.stage(split)
        yield output
      finally:
        for split in splits:
          output.discard(split)
  finally:
    with contextlib.suppress(OSError):  # Directories that are not empty remain.
      for directory in created:
        directory.rmdir()


def _create(path: pathlib.Path) -> list[pathlib.Path]:
  """Creates a directory and its parents; returns those that were missing, innermost first."""
  if re.match(r"\w{2,}:/", os.fspath(path)):  # pathlib joins two slashes.
    raise DatasetError(
      f"--output must be a local directory, received {path}. Copy the files there afterwards."
    )
  missing = [d for d in (path, *path.parents) if not d.exists()]
  try:
    path.mkdir(parents=True, exist_ok=True)
  except OSError as error:
    raise DatasetError(
      f"cannot create the output directory {path}: {error.strerror}. Expected a directory, or a "
      "path where one can be created."
    ) from error
  if not os.access(path, os.W_OK | os.X_OK):
    raise DatasetError(f"the output directory {path} is not writable. Choose another --output.")
  return missing


@contextlib.contextmanager
def _locked(path: pathlib.Path) -> Iterator[None]:
  """Holds the lock of the directory, which the system releases even after a kill."""
  descriptor = os.open(path, os.O_RDONLY)
  try:
    try:
      fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
      raise DatasetError(
        f"another conversion is writing to {path}. Wait until it ends, or choose another --output."
      ) from error
    except OSError:
      pass  # Some network file systems cannot lock directories.
    yield
  finally:
    os.close(descriptor)


def _remove_stage(path: pathlib.Path) -> None:
  if path.is_symlink():
    path.unlink()
  shutil.rmtree(path, ignore_errors=True)


def _skipped_file(split: str) -> str:
  return f"skipped-{split}.txt"


def _is_plain(name: Any) -> bool:
  """Returns whether this is the name of a file in the directory itself."""
  return isinstance(name, str) and name == os.path.basename(name) and name not in ("", ".", "..")


def _has_plain_files(record: Mapping[str, Any]) -> bool:
  files = record.get("files", [])
  return isinstance(files, list) and all(map(_is_plain, files))


def _files(record: Mapping[str, Any] | None) -> list[str]:
  """Returns the names of the files beside the shards of a split; [] for None."""
  return record.get("files", []) if record else []


def _difference(existing: Sequence[str], received: Sequence[str]) -> str:
  missing = sorted(set(existing) - set(received))
  additional = sorted(set(received) - set(existing))
  parts = []
  if missing:
    parts.append(f"missing now: {_joined(missing)}")
  if additional:
    parts.append(f"new: {_joined(additional)}")
  return "; ".join(parts) or "same names in another order"


def _joined(names: Sequence[str], limit: int = 10) -> str:
  more = f" and {len(names) - limit} more" if len(names) > limit else ""
  return ", ".join(names[:limit]) + more


def _json(content: Any) -> str:
  return json.dumps(content, indent=2, sort_keys=True) + "\n"
