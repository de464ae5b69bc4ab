"""Trainings in several processes of this machine, which meet at ports of it."""

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
  """Returns addresses of this machine where nobody listens."""
  with contextlib.ExitStack() as sockets:
    opened = [sockets.enter_context(socket.create_server(("localhost", 0))) for _ in range(count)]
    return [f"localhost:{one.getsockname()[1]}" for one in opened]


class LocalCluster:
  """Some processes that train together, and what they leave.

  Attributes:
    model_dir: of the training.
    processes: those of the last start.
  """

  def __init__(self, data, directory, count, evaluator=False):
    """Chooses the ports.

    Args:
      data: directory of the digits.
      directory: for model_dir and the processes' own files.
      count: of the processes that train.
      evaluator: whether there is one more, to evaluate.
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
      *flags: of `sasa_tf.bin.train`.
      mode: of it.
      per_process: {index: overrides} of one process.
      **overrides: as `tiny_run.overrides`.
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
      cluster["evaluator"] = ["localhost:1"]  # nobody talks to it
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
        "TF_ENABLE_ONEDNN_OPTS": "0",  # which `train` sets too late for `worker_program`
      },
      stdout=open(self._file(index, "log"), "w"),
      stderr=subprocess.STDOUT,
    )

  def finish(self, seconds=580):
    """Returns the exit status of each process of the last start, once all have ended."""
    try:
      return [process.wait(seconds) for process in self.processes]
    except subprocess.TimeoutExpired as error:
      raise AssertionError(self.printed(0)) from error
    finally:
      for process in self.processes:
        process.kill()
        process.wait()

  def printed(self, index):
    """Returns what the process of this index has printed since its last start."""
    with open(self._file(index, "log")) as file:
      return file.read()

  def left(self, index):
    """Returns {name: value} that the process left, see `worker_program`."""
    with np.load(self._file(index, "npz")) as file:
      return dict(file)

  def _file(self, index, suffix):
    return str(self._directory / f"process{index}.{suffix}")
