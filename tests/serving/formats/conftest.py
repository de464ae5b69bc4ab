"""Models and images that the tests of the formats share."""

import functools

import pytest

from tests.serving import small_classifier, small_detector
from tests.serving.formats.exports import export

# (H, W); not only that of the model's input.
SIZES = ((60, 50), (32, 32), (90, 31))


@pytest.fixture(scope="package")
def images():
  return small_detector.random_images(SIZES)


@pytest.fixture(scope="package")
def classifier():
  return small_classifier.build_module(small_classifier.params_of(attention_groups=[4]))


@pytest.fixture(scope="package")
def exported_classifier(classifier, tmp_path_factory):
  """Returns a function that returns the path of the classifier in a format, exported once."""
  folder = tmp_path_factory.mktemp("classifier") / "exported"
  folder.mkdir()
  return functools.cache(lambda name: export(name, classifier, small_classifier.NAMES, folder))
