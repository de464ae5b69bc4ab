"""Relations between the configuration and the label files beside the data."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator

from sasa_tf.data.labels import read_labels
from sasa_tf.errors import UserError
from sasa_tf.training import checks
from sasa_tf.training.config_validation.problems import Problem
from sasa_tf.training.config_validation.use import Use


def _label_files(use: Use) -> dict[str, tuple[pathlib.Path, tuple[str, ...]]]:
  """Returns {key of the data: (its label file, class names)}, without unreadable files."""
  found = {}
  for key, data in use.data.items():
    path = checks.find_label_file(data.input_path)
    if path is None:
      continue
    try:
      found[key] = path, read_labels(path)
    except UserError:
      continue  # reported with the data
  return found


def _labels(use: Use) -> Iterator[Problem]:
  if not (use.is_classification or use.is_detection):
    return
  found = _label_files(use)
  classes = use.model.num_classes
  for key, (path, labels) in found.items():
    if classes >= 1 and len(labels) > classes:
      yield Problem(
        f"task.model.num_classes={classes}: expected {len(labels)}, the number of lines of "
        f"{path}{' (with background)' if use.is_detection else ''}. Set it, or use other data.",
        ("task.model.num_classes", f"{key}.input_path"),
      )
  if len({labels for _, labels in found.values()}) > 1:
    files = {path for path, _ in found.values()}
    yield Problem(
      "task.train_data.input_path and task.validation_data.input_path: expected the same "
      f"classes; received different label files ({' and '.join(sorted(map(str, files)))}). Convert "
      "both with the same classes.",
      ("task.train_data.input_path", "task.validation_data.input_path"),
    )


RELATIONS = (_labels,)
