"""All-reduces within the programs of a MirroredStrategy's replicas."""

import os
import subprocess
import sys

import pytest
import tensorflow as tf

from tests.collectives.replica_threads import needs_library

pytestmark = needs_library
GPUS = len(tf.config.list_physical_devices("GPU"))


@pytest.mark.parametrize(
  ("kind", "replicas"),
  [
    ("CPU", 2),
    pytest.param("CPU", 4, marks=pytest.mark.slow),
    pytest.param("GPU", 2, marks=[pytest.mark.gpu, pytest.mark.skipif(GPUS < 2, reason="2 GPUs")]),
    pytest.param("GPU", 4, marks=[pytest.mark.gpu, pytest.mark.skipif(GPUS < 4, reason="4 GPUs")]),
  ],
)
def test_sums_over_the_replicas(kind, replicas):
  done = subprocess.run(
    [sys.executable, "-m", "tests.collectives.mirrored_sums", kind, str(replicas)],
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
    env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
  )
  assert done.returncode == 0, done.stdout[-5000:]
  assert f"{replicas} replicas: all sums are right" in done.stdout
