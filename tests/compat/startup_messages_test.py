"""TensorFlow's log level of programs."""

import os

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
