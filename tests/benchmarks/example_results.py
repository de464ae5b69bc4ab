"""Example measurements for the tests of the benchmark."""

from sasa_tf.benchmarks.results.records import Measurement
from sasa_tf.benchmarks.workloads.cases import Case

ENVIRONMENT = {
  "machine": "Test Processor 9000",
  "cores": 2,
  "memory_bytes": 2**34,
  "system": "Linux 1.0",
  "load_average": 0.5,
  "device": "CPU",
  "driver": None,
  "cuda": None,
  "cudnn": None,
  "threads": "all",
  "sasa_tf": "0.1.0",
  "commit": "abc1234",
  "python": "3.11.7",
  "packages": {"tensorflow": "2.20.0", "keras": "3.15.1", "tf_keras": None},
  "variables": {"XLA_FLAGS": "--xla_one=1 " * 12},
  "timestamp": "2026-01-02T03:04:05+00:00",
}


def measurement(candidate, seconds=(0.02, 0.01, 0.03), *, case=None, **values):
  """Returns a measurement of the operation; `case` overrides its settings."""
  attributes = {
    "target": "op",
    "mode": "forward_backward",
    "batch_size": 2,
    "shape": (56, 56, 64),
    "dtype": "float32",
    "jit": True,
  }
  defaults = {
    "steps": 7,
    "overhead_seconds": 1e-5,
    "peak_bytes": 3 * 2**20,
    "required_bytes": 10**8,
    "environment": ENVIRONMENT,
  }
  return Measurement(
    Case(candidate=candidate, **attributes | (case or {})), tuple(seconds), **defaults | values
  )
