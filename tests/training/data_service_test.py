"""Input pipelines in TensorFlow's tf.data service."""

import collections
import contextlib
import pathlib
import re
import signal
import socket
import subprocess
import sys

import pytest
import tensorflow as tf
from official.core import input_reader, task_factory

from sasa_tf.benchmarks import input_pipeline
from tests.training import tiny_run

DOCUMENT = pathlib.Path(__file__).parent.parent.parent / "docs" / "data.md"
SERVICE = tf.data.experimental.service
NUM_IMAGES = 48
IN_ORDER = {
  "task.train_data.shuffle_buffer_size": 1,
  "task.train_data.cycle_length": 1,
  "task.train_data.prefetch_buffer_size": 1,
}


def settings(port):
  data = {
    "enable_tf_data_service": "true",
    "tf_data_service_address": f"grpc://localhost:{port}",
    "tf_data_service_job_name": "digits",
  }
  return {f"task.train_data.{key}": value for key, value in data.items()}


@pytest.fixture(scope="module")
def numbered(tmp_path_factory):
  """Returns a directory of images, each of another brightness."""
  folder = tmp_path_factory.mktemp("numbered")
  for file in range(4):
    with tf.io.TFRecordWriter(str(folder / f"train-{file}")) as writer:
      for index in range(NUM_IMAGES // 4):
        number = file * NUM_IMAGES // 4 + index
        image = tf.io.encode_png(tf.fill([8, 8, 3], tf.cast(number, tf.uint8))).numpy()
        features = {
          "image/encoded": tf.train.Feature(bytes_list=tf.train.BytesList(value=[image])),
          "image/class/label": tf.train.Feature(int64_list=tf.train.Int64List(value=[0])),
        }
        example = tf.train.Example(features=tf.train.Features(feature=features))
        writer.write(example.SerializeToString())
  return folder


def images(folder, port, count, context):
  """Returns how often each image occurs in the first `count` ones of a training."""
  params = tiny_run.params(folder, **IN_ORDER, **settings(port))
  data = params.task.train_data
  dataset = task_factory.get_task(params.task).build_inputs(data, context)
  means = dataset.unbatch().take(count).map(lambda image, label: tf.reduce_mean(image))
  return collections.Counter(float(mean) for mean in means)


@contextlib.contextmanager
def service(num_workers):
  """Yields the port of a dispatcher with workers, all in this process."""
  dispatcher = SERVICE.DispatchServer()
  _, _, address = dispatcher.target.partition("://")
  workers = [SERVICE.WorkerServer(SERVICE.WorkerConfig(address)) for _ in range(num_workers)]
  yield int(address.rpartition(":")[2])
  del workers, dispatcher


@pytest.mark.parametrize("epochs", [1, 2])
def test_each_image_occurs_once_in_an_epoch_of_a_worker(numbered, epochs):
  with service(1) as port:
    found = images(numbered, port, epochs * NUM_IMAGES, tf.distribute.InputContext())
  assert sorted(found.values()) == [epochs] * NUM_IMAGES


def test_each_process_gets_all_images(numbered, monkeypatch):
  """Without the service, it gets its share of the files."""
  with service(1) as port:
    for process in range(2):
      # Part of the name of the job, which each process draws when it imports Model Garden.
      monkeypatch.setattr(input_reader.InputReader, "static_randnum", process)
      context = tf.distribute.InputContext(2, process, 2)
      assert len(images(numbered, port, NUM_IMAGES, context)) == NUM_IMAGES


def test_measurement_reads_from_the_service(numbered, monkeypatch):
  calls, distribute = [], SERVICE.distribute
  monkeypatch.setattr(
    SERVICE, "distribute", lambda **options: calls.append(options) or distribute(**options)
  )
  with service(1) as port:
    overrides = {"task.validation_data.input_path": "''", **settings(port)}
    params = tiny_run.params(numbered, **overrides)
    assert input_pipeline.measure_input(params, seconds=0, warmup_batches=1).images_per_second
  (options,) = calls
  assert options["service"] == f"grpc://localhost:{port}"
  assert options["compression"] is None


def free_port():
  with socket.socket() as listener:
    listener.bind(("localhost", 0))
    return listener.getsockname()[1]


class Service:
  """The processes of the document's script."""

  def __init__(self, folder):
    (code,) = re.findall(
      r"<!-- snippet: data_service -->\n```python\n(.*?)```", DOCUMENT.read_text(), re.S
    )
    self._script, self._state = folder / "data_service.py", folder / "state"
    # The name of this host may not be known to it.
    self._script.write_text(code.replace("socket.gethostname()", "'localhost'"))
    self.port, self._worker_port = free_port(), free_port()
    self.dispatcher = self.start_dispatcher()
    self.worker = self.start_worker()

  def _start(self, *arguments):
    command = [sys.executable, str(self._script), *map(str, arguments)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == f"{arguments[0]} at port {arguments[1]}\n"
    return process

  def start_dispatcher(self):
    return self._start("dispatcher", self.port, self._state)

  def start_worker(self):
    return self._start("worker", self._worker_port, f"localhost:{self.port}")

  def close(self):
    for process in (self.worker, self.dispatcher):
      process.kill()
      process.wait()


@pytest.fixture
def started(tmp_path):
  processes = Service(tmp_path)
  yield processes
  processes.close()


def kill(process):
  process.send_signal(signal.SIGKILL)
  process.wait()


@pytest.mark.slow
def test_restarted_worker_and_dispatcher(numbered, started):
  params = tiny_run.params(numbered, **IN_ORDER, **settings(started.port))
  task = task_factory.get_task(params.task)
  batches = iter(task.build_inputs(params.task.train_data, tf.distribute.InputContext()))

  def read():
    for _ in range(100):
      next(batches)

  read()
  kill(started.worker)
  started.worker = started.start_worker()
  read()
  kill(started.dispatcher)
  read()
  started.dispatcher = started.start_dispatcher()
  read()


@pytest.mark.slow
def test_training_and_measurement(tmp_path, started):
  data = tiny_run.write_data(tmp_path / "data")

  def run(module, *arguments, **overrides):
    override = tiny_run.overrides(data, **settings(started.port), **overrides)
    done = subprocess.run(
      [
        sys.executable,
        "-m",
        f"sasa_tf.bin.{module}",
        f"--experiment={tiny_run.EXPERIMENT}",
        f"--params_override={override}",
        *arguments,
      ],
      stdout=subprocess.PIPE,
      stderr=subprocess.STDOUT,
      text=True,
    )
    assert done.returncode == 0, done.stdout[-3000:]
    return done.stdout

  model_dir = f"--model_dir={tmp_path / 'run'}"
  run("train", "--mode=train_and_eval", model_dir, steps=4)
  run("train", "--mode=train_and_eval", model_dir, steps=8)
  assert tiny_run.steps_of(tmp_path / "run")[-1] == 8
  assert "images/s" in run("benchmark_input", "--input_only", "--seconds=1")
