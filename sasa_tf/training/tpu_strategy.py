"""The strategy for TPUs, and what to do where there is none."""

from __future__ import annotations

import re
import socket

import tensorflow as tf
from official.common import distribute_utils

from sasa_tf.errors import UserError

_CONNECT_SECONDS = 10
_MEND = (
  "Run on a TPU VM with the package tensorflow-tpu, runtime.tpu=local and TPU cores that no other "
  "process holds, or name a TPU of this project or its grpc://host:port. Without a TPU use "
  "runtime.distribution_strategy=mirrored or one_device; `python -m sasa_tf.bin.tpu_check` compiles"
  " for a TPU ahead of time."
)


def build_strategy(address: str | None) -> tf.distribute.Strategy:
  """Returns Model Garden's strategy over all cores of a TPU, which is initialised.

  Args:
    address: `runtime.tpu`: "local" for the TPU of this machine, a name, or "grpc://host:port".

  Raises:
    UserError: there is no such TPU, with what was tried.
  """
  if not address:
    raise UserError(
      "runtime.distribution_strategy=tpu needs runtime.tpu to say which one; received "
      f"runtime.tpu={address!r}. {_MEND}"
    )
  if address == "local":
    tried = "to initialise the TPU cores of this machine"
  elif server := re.fullmatch(r"grpc://(.+):(\d+)", address):
    tried = f"to connect to {server[1]}, port {server[2]}"
    _check_server(server[1], int(server[2]), address, tried)
  else:
    tried = f"to look up the TPU {address!r} of this Google Cloud project"
  try:
    return distribute_utils.get_distribution_strategy("tpu", tpu_address=address)
  # From its own message to that of the connection, of the metadata server or of a missing kernel.
  except (tf.errors.OpError, OSError, RuntimeError, ValueError) as error:
    raise _no_tpu(address, tried, error) from error


def _check_server(host: str, port: int, address: str, tried: str) -> None:
  """Raises at once where TensorFlow would wait for minutes."""
  try:
    socket.create_connection((host, port), _CONNECT_SECONDS).close()
  except OSError as error:
    raise _no_tpu(address, tried, error) from error


def _no_tpu(address: str, tried: str, error: Exception) -> UserError:
  reason = str(getattr(error, "message", error)).strip().split("\n")[0]
  return UserError(f"runtime.tpu={address}: tried {tried}, without success: {reason}. {_MEND}")
