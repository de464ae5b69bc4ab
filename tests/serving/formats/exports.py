"""Exports of small models, for tests that skip what is not installed."""

import importlib.util

import pytest

from sasa_tf.errors import MissingExtraError
from sasa_tf.serving.formats.format import ExportOptions
from sasa_tf.serving.formats.registry import FORMATS
from sasa_tf.serving.model_description import describe_model
from sasa_tf.serving.runtimes.registry import find_runtime


def requires_runtime(name):
  """Skips a test if the packages of a format or its runtime are not installed."""
  missing = [each for each in FORMATS[name].requires if importlib.util.find_spec(each) is None]
  if missing:
    pytest.skip(f"{', '.join(missing)} not installed")
  try:
    find_runtime(name)
  except MissingExtraError as error:
    pytest.skip(str(error))


def export(name, module, class_names, folder, **options):
  """Writes a model as the program does, and returns its path."""
  requires_runtime(name)
  path = folder / FORMATS[name].file_name
  if FORMATS[name].is_directory:
    path.mkdir()
  FORMATS[name].write(module, path, ExportOptions(describe_model(module, class_names), **options))
  return path
