"""Stub sources that build in a second, in place of the kernels."""

import json

import pytest

from sasa_tf.errors import UserError
from sasa_tf.native import build, cache, library

try:
  build.find_compilers()
  COMPILER = True
except UserError:
  COMPILER = False
needs_compiler = pytest.mark.skipif(not COMPILER, reason="there is no C++ compiler")

_EXPORT = 'extern "C" __attribute__((visibility("default"))) const char*'
REGISTER = f"{_EXPORT} sasa_tf_register()"


def handlers(names=library.KERNELS):
  """Returns the function that lists the registered kernels; the stub registers none of them."""
  lines = "".join(rf"Host sasa_tf_{name}\n" for name in names)
  return f'{_EXPORT} sasa_tf_handlers() {{ return "{lines}"; }}\n'


@pytest.fixture
def stub_kernels(tmp_path, monkeypatch):
  """Replaces the sources by a stub, with an empty cache; yields the path of the stub."""
  folder = tmp_path / "sources"
  folder.mkdir()
  monkeypatch.setattr(cache, "SOURCE_ROOT", folder)
  monkeypatch.setenv(cache.ENVIRONMENT_VARIABLE, str(tmp_path / "cache"))
  source = folder / "stub_kernels.cc"
  source.write_text(f'{REGISTER} {{ return ""; }}\n{handlers()}')
  library.load.cache_clear()
  yield source
  monkeypatch.undo()
  library.load.cache_clear()


def write_record(**record):
  """Writes a build record and an empty library to the library directory, and returns it."""
  directory = cache.library_directory()
  directory.mkdir(parents=True)
  (directory / cache.LIBRARY).touch()
  record = {
    "platforms": ["CPU"],
    "cuda": None,
    "sha256": library.digest(directory / cache.LIBRARY),
    **record,
  }
  (directory / cache.RECORD).write_text(json.dumps(record))
  return directory
