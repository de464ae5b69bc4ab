"""Runs an exported model with its runtime in a fresh process without sasa_tf."""

from __future__ import annotations

import os
import pathlib
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from sasa_tf.errors import UserError
from sasa_tf.serving.runtimes.registry import RUN_MODEL, Runtime

_LAST_LINES = 4
_MAX_CHARACTERS = 600


class RuntimeOutputs(NamedTuple):
  """What a runtime returned.

  Attributes:
    version: name and version of the runtime.
    signatures: names of the model's signatures.
    outputs: {request: {output: array [B, ...]}}.
  """

  version: str
  signatures: frozenset[str]
  outputs: dict[str, dict[str, np.ndarray]]


def run_in_fresh_process(
  runtime: Runtime,
  model: pathlib.Path,
  requests: Mapping[str, np.ndarray],
  *,
  time_limit_seconds: float,
  use_gpu: bool = False,
) -> RuntimeOutputs:
  """Runs a model on the requests of those signatures that it has.

  Args:
    runtime: of the model's format.
    model: file or directory of the model.
    requests: {SIGNATURE/NUMBER: inputs [B, ...]}. Byte strings have dtype object.
    time_limit_seconds: after which the process is killed.
    use_gpu: whether the process may use GPUs. This process usually holds their memory.

  Raises:
    UserError: the runtime cannot run the model, crashes or exceeds the time limit.
  """
  with tempfile.TemporaryDirectory() as name:
    folder = pathlib.Path(name)
    # A link, because TensorFlow takes some characters of paths for patterns.
    link = folder / f"model{model.suffix}"
    link.symlink_to(model.absolute())
    np.savez(folder / "requests.npz", **{key: _encoded(value) for key, value in requests.items()})
    command = [sys.executable, "-I", RUN_MODEL, runtime.adapter, link]
    command += [folder / "requests.npz", folder / "outputs.npz"]
    _run(
      [*map(str, command)],
      folder,
      f"{runtime.name} cannot run {model.name}",
      time_limit_seconds,
      use_gpu,
    )
    with np.load(folder / "outputs.npz") as found:
      return _parsed(dict(found))


def _run(
  command: list[str], folder: pathlib.Path, failure: str, time_limit_seconds: float, use_gpu: bool
) -> None:
  environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2"}
  if not use_gpu:
    environment["CUDA_VISIBLE_DEVICES"] = "-1"
  with open(folder / "log", "wb") as log:
    try:
      status = subprocess.run(
        command,
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        timeout=time_limit_seconds,
      ).returncode
    except subprocess.TimeoutExpired as error:
      raise UserError(
        f"{failure}: it took more than the limit of {time_limit_seconds:g} seconds."
        f"{_last_lines(folder / 'log')}"
      ) from error
  if status:
    raise UserError(f"{failure}: its process {_ending(status)}.{_last_lines(folder / 'log')}")


def _ending(status: int) -> str:
  if status >= 0:
    return f"ended with status {status}"
  ending = f"was killed by {signal.Signals(-status).name}"
  if status == -signal.SIGKILL:
    ending += ", probably because memory ran out"
  return ending


def _last_lines(log: pathlib.Path) -> str:
  lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
  if not lines:
    return " It printed nothing."
  return f" Its last lines: {' | '.join(lines[-_LAST_LINES:])[-_MAX_CHARACTERS:]}"


def _encoded(values: np.ndarray) -> np.ndarray:
  """Converts byte strings to an array without pickle, see `run_model`."""
  if values.dtype.kind != "O":
    return values
  return np.array([value + b"." for value in values.tolist()], dtype=bytes)


def _parsed(found: dict[str, np.ndarray]) -> RuntimeOutputs:
  version, signatures = str(found.pop("version")), frozenset(found.pop("signatures").tolist())
  outputs: dict[str, dict[str, np.ndarray]] = {}
  for key, value in found.items():
    request, _, name = key.rpartition("/")
    if value.dtype.kind == "S":
      value = np.array([each[:-1] for each in value.reshape(-1).tolist()], dtype=object).reshape(
        value.shape
      )
    outputs.setdefault(request, {})[name] = value
  return RuntimeOutputs(version, signatures, outputs)
