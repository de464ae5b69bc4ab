"""Sources that build in a second, in the place of the kernels."""

import json
import shutil

import pytest

from sasa_tf.native import cache, library

REGISTER = 'extern "C" __attribute__((visibility("default"))) const char* sasa_tf_register()'


@pytest.fixture
def stub_kernels(tmp_path, monkeypatch):
  """Makes sources that consist of one file, and an empty cache; returns the file."""
  folder = tmp_path / "sources"
  folder.mkdir()
  shutil.copy(cache.library_directory.__globals__["__file__"].replace("cache", "build"), folder)
  monkeypatch.setattr(cache, "SOURCE_ROOT", folder)
  monkeypatch.setenv(cache.ENVIRONMENT_VARIABLE, str(tmp_path / "cache"))
  source = folder / "stub_kernels.cc"
  source.write_text(f'{REGISTER} {{ return ""; }}\n')
  library.load.cache_clear()
  yield source
  monkeypatch.undo()
  library.load.cache_clear()


def write_record(**record):
  """Puts a record of a build, and an empty library, where a build would."""
  directory = cache.library_directory()
  directory.mkdir(parents=True)
  (directory / cache.RECORD).write_text(json.dumps({"platforms": ["CPU"], "cuda": None, **record}))
  (directory / cache.LIBRARY).touch()
  return directory
