"""The library by itself: where it can be loaded, and which symbols it brings."""

import shutil
import subprocess
import sys

import pytest

from sasa_tf.native import cache, library
from tests.native.stub_kernels import needs_compiler

REGISTER = """
import ctypes, sys
register = ctypes.CDLL(sys.argv[1]).sasa_tf_register
register.restype = ctypes.c_char_p
print(register().decode())
"""


@pytest.fixture
def path():
  assert library.load().platforms, library.load().reason
  return str(cache.library_path())


@needs_compiler
def test_loads_without_tensorflow_and_reports_that(path):
  command = [sys.executable, "-I", "-S", "-c", REGISTER, path]
  result = subprocess.run(command, capture_output=True, text=True, check=True)
  assert result.stdout.startswith("there is no TensorFlow in this process")
  assert result.stderr == ""


@needs_compiler
def test_exports_no_symbols_of_others(path):
  """A preloaded library would replace them in the whole process."""
  command = [shutil.which("nm"), "--dynamic", "--defined-only", "--format=just-symbols", path]
  symbols = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
  assert "sasa_tf_register" in symbols
  assert [name for name in symbols if not name.startswith("sasa_tf_")] == []
