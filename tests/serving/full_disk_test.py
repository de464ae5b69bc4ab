"""A disk that fills up during an export: one paragraph, and nothing half-written is left."""

import contextlib
import resource
import signal

import pytest
import tensorflow as tf
from official.core import task_factory

from sasa_tf.errors import UserError
from sasa_tf.serving.export import export_model
from sasa_tf.serving.formats import litert
from tests.training import tiny_run


@contextlib.contextmanager
def limited_file_size(limit):
  """Like a quota: a file cannot be larger."""
  before = resource.getrlimit(resource.RLIMIT_FSIZE)
  handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
  resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
  try:
    yield
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, handler)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
  params = tiny_run.params("unused")
  model = task_factory.get_task(params.task).build_model()
  path = tmp_path_factory.mktemp("run") / "ckpt"
  return params, tf.train.Checkpoint(model=model).write(str(path))


def check_full_disk(trained, limit, outputs, **options):
  params, checkpoint = trained
  with limited_file_size(limit), pytest.raises(UserError) as caught:
    export_model(
      params,
      weights=checkpoint,
      outputs=outputs,
      class_names=[f"digit {label}" for label in range(10)],
      **options,
    )
  message = str(caught.value)
  assert "cannot be written" in message and "Free disk space" in message and "\n" not in message


@pytest.mark.parametrize("limit", [0, 1 << 17], ids=["nothing", "variables"])
def test_full_disk_leaves_nothing(trained, limit, tmp_path):
  check_full_disk(trained, limit, {"saved_model": tmp_path / "saved_model"})
  assert list(tmp_path.iterdir()) == []


def test_full_disk_leaves_no_litert_file(trained, tmp_path, monkeypatch):
  """The file is larger than what is left."""
  monkeypatch.setattr(litert, "convert", lambda *_: bytes(1 << 24))
  earlier = b"\x1c\0\0\0TFL3 earlier"  # begins like a LiteRT file
  (tmp_path / "model.tflite").write_bytes(earlier)
  outputs = {"litert": tmp_path / "model.tflite"}
  check_full_disk(trained, 1 << 23, outputs, overwrite=True)
  assert [path.name for path in tmp_path.iterdir()] == ["model.tflite"]
  assert (tmp_path / "model.tflite").read_bytes() == earlier
