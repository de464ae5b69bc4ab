"""The flag --attention_summaries of `train`."""

import pytest

from sasa_tf.analysis.training_summaries.attention_summaries import AttentionSummaries
from sasa_tf.bin.attention_summaries_flag import train_actions
from sasa_tf.errors import UserError
from tests.training import tiny_run


@pytest.fixture(scope="module")
def data(tmp_path_factory):
  return tiny_run.write_data(tmp_path_factory.mktemp("digits"))


@pytest.mark.parametrize(
  ("value", "mode", "message"),
  [
    ("0", "train", "must be a number of steps, 1 or more, or auto; received '0'"),
    ("-3", "train", "received '-3'"),
    ("often", "train", "received 'often'"),
    ("", "train", "received ''"),
    ("5", "eval", "describes a training; received --mode=eval"),
  ],
)
def test_wrong_flags(value, mode, message, data):
  with pytest.raises(UserError, match=message):
    train_actions(value, tiny_run.params(data), mode)


def test_flag_selects_the_interval(data):
  params = tiny_run.params(data)
  for value, interval in (("auto", None), ("7", 7)):
    (factory,) = train_actions(value, params, "train")
    assert (factory.func, factory.keywords) == (AttentionSummaries, {"interval": interval})
  assert train_actions(None, params, "eval") == []
