"""What the trainings of these tests do without."""

import sys

import pytest


@pytest.fixture(autouse=True, scope="module")
def uncounted():
  """To log a model's FLOPs takes Model Garden longer than such a training."""
  with pytest.MonkeyPatch.context() as patch:
    if "official.core.train_utils" in sys.modules:
      patch.setattr("official.core.train_utils.try_count_flops", lambda model: None)
    yield
