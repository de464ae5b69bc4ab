"""Runs an exported model with its runtime in a fresh process without sasa_tf."""

from __future__ import annotations

import pathlib
import tempfile
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from sasa_tf.serving.child_process import run_child_process, script_command
from sasa_tf.serving.runtimes.registry import RUN_MODEL, Runtime


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
    files = [folder / "requests.npz", folder / "outputs.npz"]
    run_child_process(
      script_command(RUN_MODEL, runtime.adapter, link, *files),
      failure=f"{runtime.name} cannot run {model.name}",
      time_limit_seconds=time_limit_seconds,
      environment={
        **({} if use_gpu else {"CUDA_VISIBLE_DEVICES": "-1"}),
        **runtime.find_environment(),
      },
    )
    with np.load(folder / "outputs.npz") as found:
      return _parsed(dict(found))


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
