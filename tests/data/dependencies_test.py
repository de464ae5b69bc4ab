"""The sub-packages of sasa_tf.data import each other in one direction."""

import pathlib

import pytest

from tests.import_rules import references, sources

# Sub-package, or module of the root -> what it may import of sasa_tf.data.
ALLOWED = {
  "errors": set(),
  "inputs": {"errors"},
  "labels": {"errors", "inputs"},
  "preview_images": {"errors"},
  "conversion_report": {"images", "tfrecord"},
  "images": {"errors"},
  "tfrecord": {"errors", "images", "inputs", "labels"},
  "integrity": {"errors", "images", "inputs", "tfrecord"},
  "classification": {"errors", "images", "inputs", "labels", "preview_images", "tfrecord"},
  "detection": {"errors", "images", "inputs", "labels", "preview_images", "tfrecord"},
}
# Scenes are images of the digits.
EXCEPTIONS = {("sasa_tf/data/detection/scenes.py", "sasa_tf.data.classification.digits")}


def _forbidden(path, source):
  """Returns "path:line: name" of each import that ALLOWED does not list."""
  package = pathlib.PurePosixPath(path).with_suffix("").parts[2]
  found = []
  for line, name in references(path, source):
    parts = name.split(".")
    if parts[:2] != ["sasa_tf", "data"] or package == "__init__":
      continue
    excepted = any(path == file and name.startswith(module) for file, module in EXCEPTIONS)
    if len(parts) < 3 or (parts[2] not in {package, *ALLOWED[package]} and not excepted):
      found.append(f"{path}:{line}: {name}")
  return found


def test_sub_packages_import_only_what_is_allowed():
  files = sources("sasa_tf/data")
  assert {pathlib.PurePosixPath(path).with_suffix("").parts[2] for path in files} == {
    "__init__",
    *ALLOWED,
  }
  assert [error for path, source in files.items() for error in _forbidden(path, source)] == []


@pytest.mark.parametrize(
  ("path", "source"),
  [
    ("tfrecord/x.py", "from sasa_tf.data.detection.boxes import Box"),
    ("tfrecord/x.py", "from sasa_tf.data.classification import digits"),
    ("tfrecord/x.py", "def f():\n  import sasa_tf.data.detection.boxes"),
    ("integrity/x.py", "from sasa_tf.data.labels import read_labels"),
    ("classification/x.py", "from sasa_tf.data.detection import boxes"),
    ("detection/x.py", "from sasa_tf.data.classification.digits import CLASS_NAMES"),
    ("detection/scenes.py", "from sasa_tf.data.classification import image_folder"),
    ("conversion_report.py", "from ..data.detection import box_stats"),
    ("inputs/x.py", "from sasa_tf.data.labels import read_labels"),
    ("labels.py", "from sasa_tf.data.tfrecord import splits"),
  ],
)
def test_forbidden_imports_are_found(path, source):
  assert len(_forbidden(f"sasa_tf/data/{path}", source)) == 1
