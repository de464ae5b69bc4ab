"""The conventions for counting FLOPs."""

import pytest

from sasa_tf.analysis import CONVENTIONS, Convention
from sasa_tf.analysis.cost import OP_KINDS, LayerOps, find_convention


def test_flops_are_flops_per_op_times_counts():
  counts = {"multiply_add": 10, "softmax": 3, "normalize": 5}
  assert CONVENTIONS["mac"].flops(counts) == 20
  assert CONVENTIONS["paper"].flops(counts) == 20 + 8 * 3 + 4 * 5
  assert Convention("mine", "half", {"softmax": 1}).flops(counts) == 3


def test_every_kind_is_counted_by_a_convention():
  assert set(OP_KINDS) == {kind for c in CONVENTIONS.values() for kind in c.flops_per_op}


def test_the_paper_convention_says_that_it_was_fitted():
  assert "fitted to the paper's rows" in CONVENTIONS["paper"].summary


def test_unknown_names_raise():
  with pytest.raises(
    ValueError, match=r"one of \('mac', 'paper'\) or a Convention; received 'mca'"
  ):
    find_convention("mca")
  with pytest.raises(ValueError, match=r"unknown kinds of operations \['softmx'\]"):
    Convention("mine", "", {"softmx": 1})
  with pytest.raises(ValueError, match=r"unknown kinds of operations \['multiply'\]"):
    LayerOps(op_counts={"multiply": 1})
