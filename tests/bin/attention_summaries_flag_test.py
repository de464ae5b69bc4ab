"""The flag --attention_summaries of `train`."""

import functools

import pytest
from absl import flags
from absl.testing import flagsaver

from sasa_tf.analysis.training_summaries.attention_summaries import AttentionSummaries
from sasa_tf.bin import train
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
  with flagsaver.flagsaver():
    flags.FLAGS.mark_as_parsed()
    with (
      flagsaver.flagsaver(attention_summaries=value, mode=mode),
      pytest.raises(UserError, match=message),
    ):
      train._attention_summaries(tiny_run.params(data))


def test_flag_selects_the_interval(data):
  with flagsaver.flagsaver():
    flags.FLAGS.mark_as_parsed()
    for value, interval in (("auto", None), ("7", 7)):
      with flagsaver.flagsaver(attention_summaries=value, mode="train"):
        (factory,) = train._attention_summaries(tiny_run.params(data))
      assert isinstance(factory, functools.partial)
      assert (factory.func, factory.keywords) == (AttentionSummaries, {"interval": interval})
