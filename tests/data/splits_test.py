import collections

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sasa_tf.data.errors import DatasetError
from sasa_tf.data.tfrecord.splits import hold_out, shuffled

# Number of scikit-learn's digits per class.
DIGITS = [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]


def _items(sizes):
  return [(label, f"{label}/{i}") for label, size in enumerate(sizes) for i in range(size)]


def _label(item):
  return item[0]


def _name(item):
  return item[1]


def _held_counts(sizes, fraction):
  _, held = hold_out(_items(sizes), fraction, 0, _name, _label)
  counts = collections.Counter(map(_label, held))
  return [counts[label] for label in range(len(sizes))]


def test_order_depends_only_on_names_and_seed():
  items = _items([30, 30])
  order = shuffled(items, 0, _name)
  assert order == shuffled(items[::-1], 0, _name)
  assert sorted(order) == sorted(items)
  assert order != shuffled(items, 1, _name)


def test_order_is_the_same_on_every_machine():
  assert shuffled(list("abcdefgh"), 0, str) == list("gfcehdba")


def test_shuffle_mixes_the_classes():
  labels = [label for label, _ in shuffled(_items([500, 500]), 0, _name)]
  assert 200 < sum(labels[:500]) < 300


def test_held_out_counts_of_the_digits():
  counts = _held_counts(DIGITS, 0.2)
  assert sum(counts) == 360
  assert all(abs(count - size / 5) < 1 for count, size in zip(counts, DIGITS, strict=True))


def test_counts_are_exact():
  assert 0.07 * 100 > 7
  assert _held_counts([100], 0.07) == [7]


@given(
  st.lists(st.integers(1, 40), min_size=1, max_size=8),
  st.floats(0.01, 0.99),
  st.integers(0, 2**31),
)
def test_every_class_is_in_both_parts(sizes, fraction, seed):
  items = _items(sizes)
  remaining, held = hold_out(items, fraction, seed, _name, _label)
  assert sorted(remaining + held) == sorted(items)
  num_remaining, num_held = (collections.Counter(map(_label, part)) for part in (remaining, held))
  for label, size in enumerate(sizes):
    assert num_remaining[label] >= 1
    assert (num_held[label] >= 1) == (size > 1)


@pytest.mark.parametrize("seed", range(5))
def test_larger_fraction_holds_out_a_superset(seed):
  held = [set(hold_out(_items([50, 50]), f, seed, _name, _label)[1]) for f in (0.1, 0.2, 0.5)]
  assert held[0] < held[1] < held[2]


def test_held_out_items_depend_on_the_seed():
  held = [set(hold_out(_items([50]), 0.2, seed, _name, _label)[1]) for seed in (0, 1)]
  assert held[0] != held[1]


def test_hold_out_and_shuffle_are_independent():
  _, held = hold_out(_items([1000]), 0.5, 0, _name, _label)
  first = set(shuffled(_items([1000]), 0, _name)[:500])
  assert 200 < len(first & set(held)) < 300


@pytest.mark.parametrize("fraction", [-0.1, 0, 1, 1.5, float("nan")])
def test_fraction_out_of_range_raises(fraction):
  with pytest.raises(DatasetError, match="between 0 and 1"):
    hold_out(_items([5]), fraction, 0, _name, _label)
