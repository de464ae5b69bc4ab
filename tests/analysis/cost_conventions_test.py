"""The price lists."""

import pytest

from sasa_tf.analysis import CONVENTIONS, Convention
from sasa_tf.analysis.cost import KINDS, Facts, find_convention


def test_flops_are_prices_times_counts():
  work = {"multiply_add": 10, "softmax": 3, "normalize": 5}
  assert CONVENTIONS["mac"].flops(work) == 20
  assert CONVENTIONS["paper"].flops(work) == 20 + 8 * 3 + 4 * 5
  assert Convention("mine", "half", {"softmax": 1}).flops(work) == 3


def test_every_kind_has_a_price_somewhere():
  assert set(KINDS) == {kind for c in CONVENTIONS.values() for kind in c.prices}


def test_the_paper_convention_says_that_it_was_fitted():
  assert "fitted to the paper's rows" in CONVENTIONS["paper"].summary


def test_misspelt_names_are_refused():
  with pytest.raises(
    ValueError, match=r"one of \('mac', 'paper'\) or a Convention; received 'mca'"
  ):
    find_convention("mca")
  with pytest.raises(ValueError, match=r"unknown kinds of work \['softmx'\]"):
    Convention("mine", "", {"softmx": 1})
  with pytest.raises(ValueError, match=r"unknown kinds of work \['multiply'\]"):
    Facts(work={"multiply": 1})
