"""Multi-worker training on this machine."""

import contextlib
import json
import os
import socket
import subprocess
import sys

import numpy as np

from tests.training import tiny_run

STRATEGY = "runtime.distribution_strategy"


def free_addresses(count):
  """Returns unused addresses of this machine."""
  with contextlib.ExitStack() as sockets:
    opened = [sockets.enter_context(socket.create_server(("localhost", 0))) for _ in range(count)]
    return [f"localhost:{one.getsockname()[1]}" for one in opened]


class LocalCluster:
  """Processes that train together, and their results.

  Attributes:
    model_dir: directory of the training.
    processes: processes of the last start.
  """

  def __init__(self, data, directory, count, evaluator=False):
    """Chooses the ports.

    Args:
      data: directory of the digits.
      directory: directory for model_dir and the files of the processes.
      count: number of training processes.
      evaluator: whether there is also an evaluator.
    """
    self.model_dir = directory / "run"
    self.processes = []
    self._data = data
    self._directory = directory
    self._addresses = free_addresses(count)
    self._evaluator = evaluator

  def start(self, *flags, mode="train", per_process=None, **overrides):
    """Starts the processes.

    Args:
      *flags: flags of `sasa_tf.bin.train`.
      mode: value of its --mode.
      per_process: {index: overrides} of single processes.
      **overrides: see `tiny_run.overrides`.
    """
    overrides = {"loop": 2, "interval": 2, **overrides}
    self.processes = [
      self._start(index, flags, mode, {**overrides, **(per_process or {}).get(index, {})})
      for index in range(len(self._addresses) + self._evaluator)
    ]

  def _start(self, index, flags, mode, overrides):
    cluster = {"worker": self._addresses}
    task = {"type": "worker", "index": index}
    if self._evaluator:
      cluster["evaluator"] = ["localhost:1"]  # never contacted
      if index == len(self._addresses):
        task = {"type": "evaluator", "index": 0}
    tf_config = {"cluster": cluster, "task": task}
    values = tiny_run.overrides(self._data, **{STRATEGY: "multi_worker_mirrored", **overrides})
    return subprocess.Popen(
      [
        *(sys.executable, "-m", "tests.training.worker_program", self._file(index, "npz")),
        f"--experiment={tiny_run.EXPERIMENT}",
        f"--mode={mode}",
        f"--model_dir={self.model_dir}",
        f"--params_override={values}",
        *flags,
      ],
      env={
        **os.environ,
        "TF_CONFIG": json.dumps(tf_config),
        "TF_NUM_INTRAOP_THREADS": "1",
        "TF_ENABLE_ONEDNN_OPTS": "0",  # `worker_program` imports TensorFlow before `train` sets it
      },
      stdout=open(self._file(index, "log"), "w"),
      stderr=subprocess.STDOUT,
    )

  def finish(self, seconds=580):
    """Waits for all processes of the last start, and returns their exit statuses."""
    try:
      return [process.wait(seconds) for process in self.processes]
    except subprocess.TimeoutExpired as error:
      raise AssertionError(self.printed(0)) from error
    finally:
      for process in self.processes:
        process.kill()
        process.wait()

  def printed(self, index):
    """Returns the output of a process since its last start."""
    with open(self._file(index, "log")) as file:
      return file.read()

  def results(self, index):
    """Returns {name: value} that the process saved, see `worker_program`."""
    with np.load(self._file(index, "npz")) as file:
      return dict(file)

  def _file(self, index, suffix):
    return str(self._directory / f"process{index}.{suffix}")
