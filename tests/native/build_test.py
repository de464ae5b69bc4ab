"""The build: the path of the library, when it rebuilds, and its errors."""

import concurrent.futures
import ctypes
import json
import os
import pathlib

import pytest

from sasa_tf.errors import UserError
from sasa_tf.native import build, cache, library
from tests.native.stub_kernels import REGISTER, handlers, needs_compiler, stub_kernels  # noqa: F401


@needs_compiler
def test_kernels_have_been_built_if_there_is_a_compiler():
  """Otherwise their tests would be skipped silently; run `make native`."""
  loaded = library.load()
  expected = {"CPU", "CUDA"} if build.find_compilers().nvcc else {"CPU"}
  assert set(loaded.platforms) == expected, loaded.reason


def test_sources_are_in_the_package():
  names = {str(path.relative_to(cache.SOURCE_ROOT)) for path in cache.sources(".cc", ".h")}
  assert {"cpu/attention_kernels.cc", "ffi/registration.cc", "local_attention.h"} <= names


def test_cache_directory_follows_the_environment(monkeypatch, tmp_path):
  monkeypatch.delenv(cache.ENVIRONMENT_VARIABLE, raising=False)
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
  assert cache.cache_directory() == tmp_path / "xdg" / "sasa_tf"
  monkeypatch.delenv("XDG_CACHE_HOME")
  monkeypatch.setenv("HOME", str(tmp_path / "home"))
  assert cache.cache_directory() == tmp_path / "home" / ".cache" / "sasa_tf"
  monkeypatch.setenv(cache.ENVIRONMENT_VARIABLE, str(tmp_path / "own"))
  assert cache.cache_directory() == tmp_path / "own"


@needs_compiler
def test_builds_once_for_each_source_state(stub_kernels):  # noqa: F811
  lines = []
  first = build.build(report=lines.append)
  assert [line.split()[0] for line in lines] == ["compiling", "built"]
  assert sorted(path.name for path in first.parent.iterdir()) == [cache.RECORD, cache.LIBRARY]
  assert build.build(report=lines.append) == first
  assert lines[-1].startswith("already built")
  stub_kernels.write_text(f'{REGISTER} {{ return "changed"; }}\n{handlers()}')
  second = build.build(report=lines.append)
  assert second != first
  assert first.exists() and second.exists()


@needs_compiler
def test_another_compiler_rebuilds_in_place(stub_kernels):  # noqa: F811
  path = build.build(report=lambda line: None)
  record = path.with_name(cache.RECORD)
  record.write_text(json.dumps({**json.loads(record.read_text()), "compilers": {"g++": "1.0"}}))
  lines = []
  assert build.build(report=lines.append) == path
  assert lines[-1].startswith("built in")
  assert list(cache.cache_directory().iterdir()) == [path.parent]


@needs_compiler
def test_concurrent_builds(stub_kernels):  # noqa: F811
  with concurrent.futures.ThreadPoolExecutor(4) as pool:
    paths = list(pool.map(lambda _: build.build(force=True, report=lambda line: None), range(4)))
  assert len(set(paths)) == 1
  assert list(cache.cache_directory().iterdir()) == [paths[0].parent]
  ctypes.CDLL(str(paths[0])).sasa_tf_register()


@needs_compiler
def test_compiler_failure_is_reported_and_cleaned_up(stub_kernels, capsys):  # noqa: F811
  stub_kernels.write_text("nonsense;\n")
  with pytest.raises(UserError, match=r"(?s)cannot be built.*stub_kernels\.cc.*nonsense"):
    build.build(report=lambda line: None)
  assert list(cache.cache_directory().iterdir()) == []
  assert build.main([]) == 2
  assert "error: the compiled kernels cannot be built" in capsys.readouterr().err
  assert build.main(["--if_possible"]) == 0


def test_missing_compiler_is_reported_with_its_consequence(stub_kernels, monkeypatch, capsys):  # noqa: F811
  monkeypatch.setenv("PATH", "")
  monkeypatch.delenv("CXX", raising=False)
  assert build.main(["--if_possible"]) == 0
  error = capsys.readouterr().err
  assert error.count("\n") == 1
  assert "g++ was not found. Install g++" in error
  assert "uses TensorFlow's own operations" in error
  assert build.main([]) == 2
  assert not cache.cache_directory().exists()


@needs_compiler
def test_corrupt_library_is_rebuilt(stub_kernels):  # noqa: F811
  path = build.build(report=lambda line: None)
  path.write_bytes(b"")
  lines = []
  build.build(report=lines.append)
  assert lines[-1].startswith("built in")
  assert library.unusable_reason(path) == ""


@needs_compiler
def test_umask_does_not_let_others_write(stub_kernels):  # noqa: F811
  umask = os.umask(0)
  try:
    path = build.build(report=lambda line: None)
  finally:
    os.umask(umask)
  assert library.unusable_reason(path) == ""
  assert path.parent.stat().st_mode & 0o055 == 0o055  # for the other users of a system's cache


def test_home_directory_is_not_needed(monkeypatch):
  for name in (cache.ENVIRONMENT_VARIABLE, "XDG_CACHE_HOME", "HOME"):
    monkeypatch.delenv(name, raising=False)
  monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # no entry in /etc/passwd
  assert cache.cache_directory().name == f"sasa_tf-{os.geteuid()}"


def _compiler(folder, text):
  """Writes a program that stands in for the compiler, and returns its path."""
  folder.mkdir(exist_ok=True)
  path = folder / "compiler"
  path.write_bytes(b"#!/bin/sh\n" + text)
  path.chmod(0o755)
  return str(path)


def _read_only(path):
  """Makes a directory in which not even root can create files."""
  path.mkdir()
  return pathlib.Path("/proc/sys")


ODD_MACHINES = {
  "file in place of the cache": (
    lambda path: (path.touch(), path)[1],
    None,
    "cannot be written to",
  ),
  "file above the cache": (
    lambda path: (path.touch(), path / "x")[1],
    None,
    "cannot be written to",
  ),
  "read-only cache": (_read_only, None, "cannot be written to"),
  "cache that all can write": (
    lambda path: (path.mkdir(), path.chmod(0o777), path)[2],
    None,
    "would not be loaded",
  ),
  "full disk": (
    None,
    b"[ $1 = --version ] || { echo 'No space left on device' >&2; exit 1; }",
    "the disk is full",
  ),
  "compiler that writes nothing": (None, b"exit 0", "wrote no library"),
  "compiler that speaks no UTF-8": (None, b"printf 'kaputt: \\377\\376' >&2; exit 1", "kaputt"),
  "compiler that is killed": (None, b"kill -9 $$", "command failed"),
}


@pytest.mark.parametrize("name", ODD_MACHINES)
def test_odd_machines(stub_kernels, monkeypatch, tmp_path, capsys, name):  # noqa: F811
  """One paragraph without a traceback; with --if_possible, status 0."""
  place, compiler, reason = ODD_MACHINES[name]
  if place is not None:
    monkeypatch.setenv(cache.ENVIRONMENT_VARIABLE, str(place(tmp_path / "place")))
  text = compiler or b'for last; do :; done; touch "$last"'
  monkeypatch.setenv("CXX", _compiler(tmp_path / "bin", text))
  monkeypatch.setattr(build, "host_architectures", tuple)
  for arguments, status, label in ((["--if_possible"], 0, "note: "), ([], 2, "error: ")):
    assert build.main(arguments) == status
    error = capsys.readouterr().err
    assert error.startswith(label) and reason in error and "Traceback" not in error


def test_file_in_place_of_the_library(stub_kernels, monkeypatch, tmp_path, capsys):  # noqa: F811
  target = cache.library_directory()
  target.parent.mkdir(mode=0o755)
  target.touch()
  text = b"while [ $# -gt 1 ]; do [ $1 = -o ] && touch $2; shift; done"
  monkeypatch.setenv("CXX", _compiler(tmp_path / "bin", text))
  monkeypatch.setattr(build, "host_architectures", tuple)
  assert build.main(["--if_possible"]) == 0
  assert "cannot be written to" in capsys.readouterr().err
  assert list(target.parent.iterdir()) == [target]
  assert "cannot be read" in library.load().reason


def test_unexpected_errors_do_not_fail_if_possible(stub_kernels, monkeypatch, capsys):  # noqa: F811
  def fail(**_):
    raise RuntimeError("of an unknown kind")

  monkeypatch.setattr(build, "build", fail)
  assert build.main(["--if_possible"]) == 0
  assert "RuntimeError: of an unknown kind" in capsys.readouterr().err
  with pytest.raises(RuntimeError):
    build.main([])
