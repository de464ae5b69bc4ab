"""Important calls pass through few modules, so that a reader can follow them."""

import os

import pytest
import tensorflow as tf
from absl import flags

from sasa_tf import ops
from sasa_tf.bin import make_tfrecords
from sasa_tf.data.tfrecord import workers
from sasa_tf.data.tfrecord.image_example import EncodedExample
from sasa_tf.data.tfrecord.sharded_writer import ShardTask, write_shard
from sasa_tf.keras import LocalSelfAttention2D
from tests.data import box_data
from tests.walks import modules_executed

MAX_MODULES_TO_THE_KERNEL = 9
MAX_MODULES_OF_A_CONVERSION = 14


def assert_short_walk(modules, expected, limit):
  """Compares the modules of a walk with those expected, and their number with the limit."""
  assert modules == expected
  assert len(modules) <= limit


@pytest.mark.skipif(
  "fused" not in ops.available_implementations(), reason="the compiled kernels have not been built"
)
def test_from_the_layer_to_the_compiled_kernel():
  layer = LocalSelfAttention2D(16, num_heads=2)
  images = tf.random.stateless_normal([1, 8, 8, 16], [0, 1])
  with ops.use_implementation("fused"):
    layer(images)  # builds the layer and loads the kernels
    modules = modules_executed(lambda: layer(images))
  assert_short_walk(
    modules,
    [
      "layers/keras_mixin",
      "layers/local_self_attention",
      "ops/checks",
      "ops/xla_barriers",
      "ops/local_self_attention",
      "ops/dispatch",
      "ops/compiled/fused",
      "ops/compiled/xla_custom_call",
      "compat/tensorflow",
    ],
    MAX_MODULES_TO_THE_KERNEL,
  )


class _ConnectionWithOneTask:
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


def test_conversion_of_voc(tmp_path):
  boxes = [box_data.voc_object("cat"), box_data.voc_object("dog", (5, 1, 2, 9))]
  files = {"a": box_data.voc_xml(*boxes), "b": box_data.voc_xml()}
  root = box_data.write_voc(tmp_path / "voc", files, {"train": "a", "val": "b"})
  values = flags.FlagValues()
  make_tfrecords.define_flags(values)
  arguments = values(["", "voc", f"--input={root}", f"--output={tmp_path}/out"])
  modules = modules_executed(lambda: make_tfrecords.execute(arguments, values))
  assert_short_walk(
    [module for module in modules if not module.startswith(("data/inputs/", "data/images/"))],
    [
      "bin/make_tfrecords",
      "data/detection/voc",
      "data/detection/boxes",
      "data/labels",
      "data/detection/voc_files",
      "reporting/progress",
      "data/detection/annotated_images",
      "data/tfrecord/splits",
      "data/tfrecord/sharded_writer",
      "data/detection/box_stats",
      "data/tfrecord/output_directory",
      "data/tfrecord/workers",
      "data/tfrecord/image_example",
      "data/conversion_report",
    ],
    MAX_MODULES_OF_A_CONVERSION,
  )


def test_worker_process_of_a_conversion(tmp_path, monkeypatch):
  for name in ("CUDA_VISIBLE_DEVICES", "TF_CPP_MIN_LOG_LEVEL"):
    monkeypatch.setenv(name, os.environ.get(name, ""))  # restored after the test
  task = ShardTask(str(tmp_path / "shard"), [0], lambda _: EncodedExample(b"x", "jpeg"), False)
  connection = _ConnectionWithOneTask(task)
  modules = modules_executed(lambda: workers._serve(connection, write_shard))
  assert connection.sent[-1][0] == "result"
  assert modules == ["data/tfrecord/workers", "data/tfrecord/sharded_writer"]
