"""Loading the library, and the fallback without one."""

import re
import subprocess
import sys

import pytest
import tensorflow as tf

from sasa_tf import ops
from sasa_tf.native import build, library
from tests.native.stub_kernels import REGISTER, needs_compiler, stub_kernels, write_record  # noqa: F401

X = tf.random.stateless_normal([2, 16, 16, 4, 8], [0, 1])


def _fused_error():
  """Checks that "auto" works without the kernels; returns the error message of "fused"."""
  assert ops.available_implementations() == ("reference", "blocked")
  assert ops.local_attention_2d(X, X, X).shape == X.shape
  with pytest.raises(ValueError, match="implementation='fused' cannot compute this") as error:
    ops.local_attention_2d(X, X, X, implementation="fused")
  return str(error.value)


def test_not_built(stub_kernels):  # noqa: F811
  assert "have not been built for TensorFlow" in _fused_error()
  assert library.BUILD_COMMAND in _fused_error()


def test_broken_library(stub_kernels):  # noqa: F811
  write_record()
  assert "cannot be used" in _fused_error()
  assert "--force" in _fused_error()


@needs_compiler
@pytest.mark.parametrize(
  ("source", "reason"),
  [
    (f'{REGISTER} {{ return "XLA error"; }}', "XLA error"),
    (f"const char* missing(); {REGISTER} {{ return missing(); }}", "undefined symbol"),
    ("", "sasa_tf_register"),
  ],
)
def test_incompatible_library(stub_kernels, source, reason):  # noqa: F811
  stub_kernels.write_text(source)
  build.build(report=lambda line: None)
  assert reason in _fused_error()


@needs_compiler
def test_build_is_used_in_the_same_process(stub_kernels):  # noqa: F811
  assert library.load().platforms == ()
  build.build(report=lambda line: None)
  assert library.load().platforms == ("CPU",)


@pytest.mark.parametrize(
  ("driver", "capability", "reason"),
  [
    (0, (9, 0), "the NVIDIA driver supports CUDA 0"),
    (12, (9, 0), "supports CUDA 12, but the compiled kernels were built with CUDA 13.0"),
    (13, (7, 5), r"capability 8.0 or more; .* \(Old\) has 7.5"),
    (13, (9, 0), "^$"),
    (14, (8, 0), "^$"),
  ],
)
def test_unsupported_gpus_and_drivers(monkeypatch, driver, capability, reason):
  gpu = tf.config.PhysicalDevice("/physical_device:GPU:0", "GPU")
  details = {"compute_capability": capability, "device_name": "Old"}
  monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [gpu])
  monkeypatch.setattr(tf.config.experimental, "get_device_details", lambda gpu: details)
  monkeypatch.setattr(library, "_driver_version", lambda: driver)
  problem = library._gpu_problem("13.0")
  assert re.search(reason, problem), problem


def test_loading_starts_no_process(monkeypatch):
  def popen(*_args, **_options):
    raise AssertionError("loading started a process")

  monkeypatch.setattr(subprocess, "Popen", popen)
  library.load.__wrapped__()


def test_import_does_not_load_the_library():
  program = (
    "from sasa_tf import ops; from sasa_tf.native import library; "
    "assert library.load.cache_info().currsize == 0; "
    "ops.available_implementations(); assert library.load.cache_info().currsize == 1"
  )
  subprocess.run([sys.executable, "-c", program], check=True)
