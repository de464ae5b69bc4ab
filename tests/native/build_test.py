"""The build: the path of the library, when it rebuilds, and its errors."""

import concurrent.futures
import ctypes
import json

import pytest

from sasa_tf.errors import UserError
from sasa_tf.native import build, cache, library
from tests.native.stub_kernels import REGISTER, needs_compiler, stub_kernels  # noqa: F401


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
  stub_kernels.write_text(f'{REGISTER} {{ return "changed"; }}\n')
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
  assert build.main([]) == 1
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
  assert build.main([]) == 1
  assert not cache.cache_directory().exists()
