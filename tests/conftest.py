"""What all tests share."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
if "PYTEST_XDIST_WORKER" in os.environ:  # one of several processes, which share a GPU's memory
  os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")

from absl import flags

# TensorFlow's and Model Garden's helpers read absl flags, which pytest never parses.
flags.FLAGS(["pytest"])


def pytest_collection_modifyitems(items):
  """Brings forward what starts programs: files of minutes, while this process is still small."""
  first = ("tests/bin/", "tests/serving/", "tests/training/")
  items.sort(key=lambda item: not item.nodeid.startswith(first))
