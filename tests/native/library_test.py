"""The loaded library, and what happens without one."""

import re
import subprocess
import sys
import time

import pytest
import tensorflow as tf

from sasa_tf import ops
from sasa_tf.native import build, library
from tests.native.build_test import needs_compiler
from tests.native.stub_kernels import REGISTER, stub_kernels, write_record  # noqa: F401

X = tf.random.stateless_normal([2, 16, 16, 4, 8], [0, 1])


def _falls_back():
  """ "auto" works without the kernels, and "fused" says why it does not; returns what it says."""
  assert ops.available_implementations() == ("reference", "blocked")
  assert ops.local_attention_2d(X, X, X).shape == X.shape
  with pytest.raises(ValueError, match="implementation='fused' cannot compute this") as error:
    ops.local_attention_2d(X, X, X, implementation="fused")
  return str(error.value)


def test_not_built(stub_kernels):  # noqa: F811
  assert "have not been built for TensorFlow" in _falls_back()
  assert library.BUILD_COMMAND in _falls_back()


def test_a_broken_library(stub_kernels):  # noqa: F811
  write_record()
  assert "cannot be used" in _falls_back()
  assert "--force" in _falls_back()


@needs_compiler
@pytest.mark.parametrize(
  ("source", "reason"),
  [
    (f'{REGISTER} {{ return "XLA says no"; }}', "XLA says no"),
    (f"const char* missing(); {REGISTER} {{ return missing(); }}", "undefined symbol"),
    ("", "sasa_tf_register"),
  ],
)
def test_a_library_of_another_abi(stub_kernels, source, reason):  # noqa: F811
  stub_kernels.write_text(source)
  build.build(report=lambda line: None)
  assert reason in _falls_back()


@needs_compiler
def test_a_build_in_this_process_counts(stub_kernels):  # noqa: F811
  assert library.load().platforms == ()
  build.build(report=lambda line: None)
  assert library.load().platforms == ("CPU",)


@pytest.mark.parametrize(
  ("driver", "capability", "reason"),
  [
    (0, (9, 0), "the NVIDIA driver is made for CUDA 0"),
    (12, (9, 0), "made for CUDA 12, the compiled kernels were built with CUDA 13.0"),
    (13, (7, 5), r"capability 8.0 or more; .* \(Old\) has 7.5"),
    (13, (9, 0), "^$"),
    (14, (8, 0), "^$"),
  ],
)
def test_gpus_that_cannot_run_them(monkeypatch, driver, capability, reason):
  gpu = tf.config.PhysicalDevice("/physical_device:GPU:0", "GPU")
  details = {"compute_capability": capability, "device_name": "Old"}
  monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [gpu])
  monkeypatch.setattr(tf.config.experimental, "get_device_details", lambda gpu: details)
  monkeypatch.setattr(library, "_driver_version", lambda: driver)
  problem = library._gpu_problem("13.0")
  assert re.search(reason, problem), problem


def test_loading_is_quick():
  begin = time.process_time()
  library.load.__wrapped__()
  assert time.process_time() - begin < 0.05


def test_importing_loads_no_library():
  program = (
    "from sasa_tf import ops; from sasa_tf.native import library; "
    "assert library.load.cache_info().currsize == 0; "
    "ops.available_implementations(); assert library.load.cache_info().currsize == 1"
  )
  subprocess.run([sys.executable, "-c", program], check=True)
