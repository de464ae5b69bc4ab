"""A conversion passes through few modules, so that a reader can follow it."""

import os
import pathlib
import sys

from absl import flags

import sasa_tf
from sasa_tf.bin import make_tfrecords
from sasa_tf.data.tfrecord import workers
from sasa_tf.data.tfrecord.image_example import EncodedExample
from sasa_tf.data.tfrecord.sharded_writer import ShardTask, write_shard
from tests.data import box_data
from tests.data.box_data import voc_object, voc_xml

ROOT = pathlib.Path(sasa_tf.__file__).parent


def modules_executed(function):
  """Returns the files of sasa_tf, relative to it, whose functions run in a call of `function`."""
  files = set()

  def profile(frame, event, _):
    if event == "call" and frame.f_code.co_name != "<module>":
      files.add(frame.f_code.co_filename)

  before = sys.getprofile()
  sys.setprofile(profile)
  try:
    function()
  finally:
    sys.setprofile(before)
  paths = (pathlib.Path(file) for file in files)
  return {path.relative_to(ROOT).as_posix() for path in paths if path.is_relative_to(ROOT)}


class _OneTaskConnection:
  """A worker's connection to a parent that sends one task and exits."""

  def __init__(self, task):
    self._tasks = [(0, task)]
    self.sent = []

  def recv(self):
    if not self._tasks:
      raise EOFError
    return self._tasks.pop()

  def send(self, message):
    self.sent.append(message)


def test_voc_conversion(tmp_path):
  files = {"a": voc_xml(voc_object(), voc_object("dog", (5, 1, 2, 9))), "b": voc_xml(voc_object())}
  root = box_data.write_voc(tmp_path / "voc", files, {"train": "a", "val": "b"})
  values = flags.FlagValues()
  make_tfrecords.define_flags(values)
  arguments = values(["", "voc", f"--input={root}", f"--output={tmp_path}/out"])
  modules = modules_executed(lambda: make_tfrecords.execute(arguments, values))
  assert {"bin/make_tfrecords.py", "data/detection/voc.py"} <= modules
  assert len(modules) <= 14, sorted(modules)


def test_worker_process_adds_no_modules(tmp_path, monkeypatch):
  for name in ("CUDA_VISIBLE_DEVICES", "TF_CPP_MIN_LOG_LEVEL"):
    monkeypatch.setenv(name, os.environ.get(name, ""))  # Restored after the test.
  task = ShardTask(str(tmp_path / "shard"), [0], lambda _: EncodedExample(b"x", "jpeg"), False)
  connection = _OneTaskConnection(task)
  modules = modules_executed(lambda: workers._serve(connection, write_shard))
  assert modules == {"data/tfrecord/workers.py", "data/tfrecord/sharded_writer.py"}
  assert connection.sent[-1][0] == "result"
