"""Loading the library, and the fallback without one."""

import os
import re
import subprocess
import sys

import pytest
import tensorflow as tf

from sasa_tf import ops
from sasa_tf.native import build, cache, library, trust
from tests.native.stub_kernels import (  # noqa: F401
  REGISTER,
  handlers,
  needs_compiler,
  stub_kernels,
  write_record,
)

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
    (f'{REGISTER} {{ return "XLA error"; }}\n{handlers()}', "XLA error"),
    (f"const char* missing(); {REGISTER} {{ return missing(); }}", "undefined symbol"),
    ("", "sasa_tf_register"),
    (f'{REGISTER} {{ return ""; }}\n', "sasa_tf_handlers"),
    (
      f'{REGISTER} {{ return ""; }}\n{handlers(library.KERNELS[:-1])}',
      "incomplete, it lacks Host sasa_tf_all_reduce",
    ),
  ],
)
def test_incompatible_library(stub_kernels, source, reason):  # noqa: F811
  stub_kernels.write_text(source)
  build.build(report=lambda line: None)
  assert reason in _fused_error()


def test_library_that_the_record_does_not_describe(stub_kernels, caplog):  # noqa: F811
  directory = write_record()
  (directory / cache.LIBRARY).write_bytes(b"another one")
  assert "is not the library that" in _fused_error()
  assert "not the library that" in caplog.text


@pytest.mark.parametrize(
  "record",
  [
    b"",
    b"\xff\xfe",
    b"[]",
    b"3",
    b"{}",
    b'{"platforms": ["CPU"]}',
    b'{"platforms": "CPU", "cuda": null, "sha256": ""}',
    b'{"platforms": [], "cuda": null, "sha256": ""}',
    b'{"platforms": ["CPU"], "cuda": 13, "sha256": ""}',
    b"[" * 100_000,
  ],
  ids=lambda record: record[:30].decode(errors="replace"),
)
def test_record_that_is_not_one(stub_kernels, record):  # noqa: F811
  directory = write_record()
  (directory / cache.RECORD).write_bytes(record)
  assert "build.json is not a complete record of a build" in _fused_error()


@pytest.mark.parametrize("name", [cache.LIBRARY, cache.RECORD])
def test_pipes_are_not_read(stub_kernels, name):  # noqa: F811
  path = write_record() / name
  path.unlink()
  os.mkfifo(path)
  assert f"{path} is no file" in _fused_error()


@pytest.mark.parametrize("planted", ["cache", "directory", cache.LIBRARY, cache.RECORD])
@pytest.mark.parametrize("mode", [0o777, 0o775, 0o1777])
def test_files_that_others_can_write_are_not_loaded(stub_kernels, caplog, planted, mode):  # noqa: F811
  directory = write_record()
  paths = {"cache": directory.parent, "directory": directory}
  path = paths.get(planted, directory / planted)
  path.chmod(mode)
  expected = f"{path} is writable by other users (mode {mode:04o})"
  assert expected in _fused_error()
  assert f"chmod go-w {path}" in _fused_error()
  assert [r.levelname for r in caplog.records if expected in r.message] == ["WARNING"]


def test_files_of_another_user_are_not_loaded(stub_kernels, monkeypatch):  # noqa: F811
  directory = write_record()
  own = os.geteuid()
  monkeypatch.setattr(trust.os, "geteuid", lambda: own + 1)
  if own == 0:  # root's files are trusted
    assert trust.untrusted_reason([directory]) is None
    os.chown(directory / cache.LIBRARY, 12345, -1)
    assert "belongs to another user (uid 12345)" in _fused_error()
  else:
    assert f"belongs to another user (uid {own})" in _fused_error()


def test_links_are_followed(stub_kernels, tmp_path):  # noqa: F811
  directory = write_record()
  link = tmp_path / "link"
  link.symlink_to(directory)
  assert trust.untrusted_reason([link]) is None
  directory.chmod(0o777)
  assert "is writable by other users" in trust.untrusted_reason([link])
  assert "cannot be read" in trust.untrusted_reason([tmp_path / "missing"])


@needs_compiler
def test_build_is_used_in_the_same_process(stub_kernels):  # noqa: F811
  assert library.load().platforms == ()
  build.build(report=lambda line: None)
  assert library.load().platforms == ("CPU",)


@pytest.mark.parametrize(
  ("compilers", "architectures"),
  [({"architectures": [80, 90]}, (80, 90)), ({}, ()), (None, ())],
)
def test_architectures_are_those_of_the_record(
  stub_kernels,  # noqa: F811
  monkeypatch,
  compilers,
  architectures,
):
  write_record(platforms=["CPU", "CUDA"], cuda="13.0", compilers=compilers)
  monkeypatch.setattr(library, "_register", lambda path, platforms: "")
  monkeypatch.setattr(library, "_gpu_problem", lambda built_for: "")
  assert library.load().architectures == architectures


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
  assert "is unknown" in library._gpu_problem("")


def test_capability_is_the_lowest_of_all_gpus(monkeypatch):
  gpus = {f"/physical_device:GPU:{i}": c for i, c in enumerate([(9, 0), (8, 6), (10, 0)])}
  devices = [tf.config.PhysicalDevice(name, "GPU") for name in gpus]
  monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: devices)
  monkeypatch.setattr(
    tf.config.experimental,
    "get_device_details",
    lambda gpu: {"compute_capability": gpus[gpu.name]},
  )
  assert library.gpu_capability.__wrapped__() == (8, 6)
  devices.clear()
  assert library.gpu_capability.__wrapped__() == (0, 0)


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


def test_path_that_is_too_long_holds_no_build(tmp_path):
  assert library.read_record(tmp_path / ("x" * 300)) == {}
