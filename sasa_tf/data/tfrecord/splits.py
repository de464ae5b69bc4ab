"""Deterministic shuffling and holding out, by hash of each item's name.

A hash depends neither on the order of the items nor on Python's random generator, so the same
names and seed give the same order on every machine.
"""

import fractions
import hashlib
import math
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import TypeVar

from sasa_tf.data.errors import DatasetError

Item = TypeVar("Item")


def shuffled(items: Iterable[Item], seed: int, name: Callable[[Item], str]) -> list[Item]:
  """Returns the items in an order that depends on their names and the seed only."""
  return sorted(items, key=lambda item: _rank("shuffle", seed, name(item)))


def hold_out(
  items: Sequence[Item],
  fraction: float,
  seed: int,
  name: Callable[[Item], str],
  label: Callable[[Item], Hashable],
) -> tuple[list[Item], list[Item]]:
  """Holds out a share of every class; a larger fraction holds out a superset.

  The shares add up to the fraction of the whole, rounded up, but a class of two or more gives at
  least one item and keeps at least one.

  Args:
    items: what to divide.
    fraction: share to hold out, 0 < fraction < 1.
    seed: another seed holds out other items.
    name: an item's unique name.
    label: an item's class.

  Returns:
    (kept, held out), both in the order of `items`.

  Raises:
    DatasetError: the fraction is not between 0 and 1.
  """
  if not 0 < fraction < 1:
    raise DatasetError(f"the held-out fraction must lie between 0 and 1, received {fraction}.")
  classes: dict[Hashable, list[Item]] = {}
  for item in items:
    classes.setdefault(label(item), []).append(item)
  counts = _shares([len(members) for members in classes.values()], fraction)
  held_names = set()
  for members, count in zip(classes.values(), counts, strict=True):
    ranked = sorted(members, key=lambda item: _rank("hold out", seed, name(item)))
    held_names.update(name(item) for item in ranked[:count])
  kept = [item for item in items if name(item) not in held_names]
  held = [item for item in items if name(item) in held_names]
  return kept, held


def _shares(sizes: Sequence[int], fraction: float) -> list[int]:
  """Largest-remainder shares of the classes, in exact arithmetic."""
  exact = [size * fractions.Fraction(str(fraction)) for size in sizes]
  most = [max(size - 1, 0) for size in sizes]
  shares = [min(max(math.floor(share), 1), limit) for share, limit in zip(exact, most, strict=True)]
  missing = math.ceil(sum(exact)) - sum(shares)
  by_remainder = sorted(range(len(sizes)), key=lambda i: shares[i] - exact[i])
  for i in [i for i in by_remainder if shares[i] < most[i]][: max(missing, 0)]:
    shares[i] += 1
  return shares


def _rank(purpose: str, seed: int, name: str) -> bytes:
  text = f"{purpose}/{seed}/{name}".encode("utf-8", "surrogateescape")
  return hashlib.blake2b(text, digest_size=16).digest()
