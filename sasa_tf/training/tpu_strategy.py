"""The distribution strategy for TPUs, with clear errors where there is none."""

from __future__ import annotations

import re
import socket

import tensorflow as tf
from official.common import distribute_utils

from sasa_tf.errors import UserError

_CONNECT_SECONDS = 10
_ADVICE = (
  "Run on a TPU VM with the package tensorflow-tpu, runtime.tpu=local and TPU cores that no other "
  "process uses, or set runtime.tpu to a TPU of this project or its grpc://host:port. Without a "
  "TPU use runtime.distribution_strategy=mirrored or one_device; `python -m sasa_tf.bin.tpu_check` "
  "compiles for a TPU ahead of time."
)


def build_strategy(address: str | None) -> tf.distribute.Strategy:
  """Initializes a TPU and returns Model Garden's strategy over all of its cores.

  Args:
    address: `runtime.tpu`: "local" for the TPU of this machine, a name, or "grpc://host:port".

  Raises:
    UserError: the TPU is not available. The message says what was attempted.
  """
  if not address:
    raise UserError(
      "runtime.distribution_strategy=tpu needs runtime.tpu, the name or address of a TPU; received "
      f"runtime.tpu={address!r}. {_ADVICE}"
    )
  if address == "local":
    attempt = "initialize the TPU cores of this machine"
  elif server := re.fullmatch(r"grpc://(.+):(\d+)", address):
    attempt = f"connect to {server[1]}, port {server[2]}"
    _check_server(server[1], int(server[2]), address, attempt)
  else:
    attempt = f"look up the TPU {address!r} of this Google Cloud project"
  try:
    return distribute_utils.get_distribution_strategy("tpu", tpu_address=address)
  # Errors of the connection, of the metadata server, or of a missing kernel.
  except (tf.errors.OpError, OSError, RuntimeError, ValueError) as error:
    raise _unavailable(address, attempt, error) from error


def _check_server(host: str, port: int, address: str, attempt: str) -> None:
  """Raises immediately where TensorFlow would wait for minutes."""
  try:
    socket.create_connection((host, port), _CONNECT_SECONDS).close()
  except OSError as error:
    raise _unavailable(address, attempt, error) from error


def _unavailable(address: str, attempt: str, error: Exception) -> UserError:
  reason = str(getattr(error, "message", error)).strip().split("\n")[0]
  return UserError(f"runtime.tpu={address}: failed to {attempt}: {reason}. {_ADVICE}")
