"""Messages of other libraries while a program starts."""

import os
import warnings

import pytest

from sasa_tf.compat import startup_messages


@pytest.mark.parametrize(
  ("argv", "variable", "level"),
  [
    (["train"], None, "3"),
    (["train", "--verbosity=1"], None, "0"),
    (["train", "-v=2"], None, "0"),
    (["train", "--verbosity=0"], None, "3"),
    (["train", "--verbosity=1"], "2", "2"),
    (["train"], "1", "1"),
  ],
)
def test_log_level(argv, variable, level, monkeypatch):
  monkeypatch.delenv("TF_CPP_MIN_LOG_LEVEL", raising=False)
  if variable:
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", variable)
  startup_messages.silence(argv)
  assert os.environ["TF_CPP_MIN_LOG_LEVEL"] == level


@pytest.mark.parametrize("verbosity", [0, 1])
def test_warning_of_the_age_of_python(verbosity):
  with warnings.catch_warnings(record=True) as received:
    warnings.resetwarnings()
    startup_messages.silence([f"--verbosity={verbosity}"])
    for module in ("google.api_core._python_version_support", "keras"):
      warnings.warn_explicit(module, FutureWarning, "file.py", 1, module)
  shown = [str(warning.message) for warning in received]
  assert shown == ["google.api_core._python_version_support", "keras"][1 - verbosity :]
