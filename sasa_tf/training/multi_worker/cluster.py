"""The processes of a multi-worker run, read from the environment variable TF_CONFIG."""

from __future__ import annotations

import dataclasses
import json
import os
import socket
from collections.abc import Mapping
from typing import Any

from sasa_tf.errors import UserError

_EXAMPLE = (
  '\'{"cluster": {"worker": ["host0:2222", "host1:2222"]}, "task": {"type": "worker", '
  '"index": 0}}\', with a different index in every process'
)
_TRAINING = ("chief", "worker")
_TYPES = (*_TRAINING, "evaluator")


@dataclasses.dataclass(frozen=True)
class Cluster:
  """The processes of a run, and the task of this process.

  Attributes:
    jobs: {"chief": addresses, "worker": addresses} of the training processes, without empty jobs.
    task_type: type of this process: "chief", "worker" or "evaluator".
    index: index of this process within its job.
    has_evaluator: whether TF_CONFIG has an evaluator.
  """

  jobs: dict[str, tuple[str, ...]]
  task_type: str
  index: int
  has_evaluator: bool = False

  @property
  def addresses(self) -> tuple[str, ...]:
    """Addresses of the training processes in TensorFlow's order: the chief first."""
    return tuple(address for job in _TRAINING for address in self.jobs.get(job, ()))

  @property
  def is_evaluator(self) -> bool:
    """Whether this process evaluates and does not train."""
    return self.task_type == "evaluator"

  @property
  def is_chief(self) -> bool:
    """Whether this process writes checkpoints and reports."""
    first = next(job for job in _TRAINING if job in self.jobs)
    return (self.task_type, self.index) == (first, 0)

  @property
  def address(self) -> str:
    """Address at which this training process listens."""
    return self.jobs[self.task_type][self.index]

  def __str__(self) -> str:
    if self.is_evaluator:
      return "evaluator"
    number = self.addresses.index(self.address)
    role = "chief" if self.is_chief else "worker"
    return f"{role}, process {number} of {len(self.addresses)} at {self.address}"

  def check_port(self) -> None:
    """Checks that this process can listen at its address.

    TensorFlow silently shares a port with another process, and then both wait forever.

    Raises:
      UserError: the port is in use.
    """
    port = int(self.address.rpartition(":")[2])
    try:
      with socket.create_server(("", port)):
        pass
    except OSError as error:
      raise UserError(
        f"TF_CONFIG gives this process {self.address}, but its port cannot be used here: "
        f"{error.strerror}. End the process that listens there (`ss -ltnp` lists it; it may be a "
        "worker of an earlier run), or use another port in the TF_CONFIG of every process."
      ) from error


def read_cluster(
  worker_hosts: str | None = None,
  task_index: int = -1,
  environment: Mapping[str, str] = os.environ,
) -> Cluster | None:
  """Returns the cluster of TF_CONFIG or of Model Garden's fields, or None without either.

  Args:
    worker_hosts: Model Garden's `runtime.worker_hosts`: "host:port,host:port".
    task_index: Model Garden's `runtime.task_index`.
    environment: environment variables; TF_CONFIG overrides the fields.

  Raises:
    UserError: TF_CONFIG or the fields are malformed.
  """
  text = environment.get("TF_CONFIG", "").strip()
  if text:
    return _parse(text)
  if worker_hosts:
    workers = _addresses("runtime.worker_hosts", worker_hosts.split(","))
    if not 0 <= task_index < len(workers):
      raise UserError(
        f"runtime.worker_hosts has {len(workers)} workers: expected runtime.task_index from 0 to "
        f"{len(workers) - 1}, different in every process; received {task_index}."
      )
    return Cluster({"worker": workers}, "worker", task_index)
  return None


def _parse(text: str) -> Cluster | None:
  try:
    config = json.loads(text)
  except (RecursionError, ValueError) as error:
    raise _malformed(f"it is not JSON: {error}", text) from error
  config = _mapping("it", config, text)
  if not config:
    return None  # some platforms set an empty TF_CONFIG for a single process
  if "cluster" not in config or "task" not in config:
    missing = " and ".join(repr(key) for key in ("cluster", "task") if key not in config)
    raise _malformed(f"it has no {missing}", text)
  jobs = _jobs(_mapping("'cluster'", config["cluster"], text), text)
  task = _mapping("'task'", config["task"], text)
  task_type, index = task.get("type"), task.get("index")
  if task_type not in _TYPES:
    raise _malformed(f"its task's 'type' is {task_type!r}, not one of {', '.join(_TYPES)}", text)
  try:
    index = int(index)
  except (TypeError, ValueError):
    raise _malformed(f"its task's 'index' is {index!r}, not a number", text) from None
  size = len(jobs.get(task_type, ()))
  if task_type != "evaluator" and not 0 <= index < size:
    raise _malformed(
      f"its task is {task_type} {index}, but the cluster has {size} of type {task_type}"
      f"{f', from 0 to {size - 1}' if size else ''}",
      text,
    )
  return Cluster(jobs, task_type, index, has_evaluator="evaluator" in config["cluster"])


def _jobs(cluster: Mapping[str, Any], text: str) -> dict[str, tuple[str, ...]]:
  unknown = sorted(set(cluster) - set(_TYPES))
  if unknown:
    raise _malformed(
      f"its cluster has {', '.join(unknown)}; only {', '.join(_TYPES)} are supported (no "
      "parameter servers)",
      text,
    )
  jobs = {}
  for job in _TRAINING:
    addresses = cluster.get(job) or []
    if not isinstance(addresses, list) or not all(isinstance(a, str) for a in addresses):
      raise _malformed(f"{job!r} of its cluster is not a list of 'host:port'", text)
    if addresses:
      jobs[job] = _addresses(f"{job!r} of TF_CONFIG's cluster", addresses)
  all_addresses = [address for addresses in jobs.values() for address in addresses]
  if not all_addresses:
    raise _malformed("its cluster has neither chief nor worker", text)
  if len(jobs.get("chief", ())) > 1:
    raise _malformed(f"its cluster has {len(jobs['chief'])} chiefs instead of one", text)
  repeated = sorted({address for address in all_addresses if all_addresses.count(address) > 1})
  if repeated:
    raise _malformed(f"its cluster has {', '.join(repeated)} more than once", text)
  return jobs


def _addresses(name: str, addresses: list[str]) -> tuple[str, ...]:
  addresses = [address.strip() for address in addresses]
  for address in addresses:
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
      raise UserError(
        f"{name}: expected addresses as host:port, for example host0:2222; received {address!r}."
      )
  return tuple(addresses)


def _mapping(name: str, value: Any, text: str) -> Mapping[str, Any]:
  if not isinstance(value, dict):
    raise _malformed(f"{name} is not a JSON object but {value!r}", text)
  return value


def _malformed(problem: str, text: str) -> UserError:
  return UserError(
    f"the environment variable TF_CONFIG is malformed: {problem}. Expected for example {_EXAMPLE}; "
    f"received {text[:200]!r}. For a run in a single process, unset it."
  )
