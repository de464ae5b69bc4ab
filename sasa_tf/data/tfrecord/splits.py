"""Plans splits: deterministic shuffling, stratified hold-out and the number of shards.

Items are ordered by a hash of their names. The order is independent of the input order and of
Python's random generator, so equal names and seeds give the same order on every machine.
"""

import dataclasses
import fractions
import hashlib
import itertools
import math
import re
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any, TypeVar

from sasa_tf.data.errors import DatasetError
from sasa_tf.data.tfrecord.image_example import Problem

Item = TypeVar("Item")

_BYTES_PER_SHARD = 128 * 2**20
_MIN_SHARDS = 8  # Model Garden reads about this many files in parallel.
_MAX_SHARDS = 1024
_MIN_ITEMS_PER_SHARD = 64


@dataclasses.dataclass(frozen=True)
class SplitPlan:
  """Content of a split.

  Attributes:
    items: the items in their final order.
    num_shards: number of files to write them to.
    problems: invalid annotations that belong to none of the items.
  """

  items: Sequence[Any]
  num_shards: int
  problems: Sequence[Problem] = ()

  def shards(self) -> list[Sequence[Any]]:
    """Returns the items of each shard; their numbers differ by at most one."""
    bounds = [len(self.items) * i // self.num_shards for i in range(self.num_shards + 1)]
    return [self.items[start:end] for start, end in itertools.pairwise(bounds)]


def plan_split(name: str, items: Sequence[Any], num_bytes: int, num_shards: int = 0) -> SplitPlan:
  """Validates a split and chooses its number of shards.

  Args:
    name: name of the split: letters, digits and underscores.
    items: its items in their final order.
    num_bytes: total size of their images.
    num_shards: number of files; 0 selects 8 to 1024 files of about 128 MiB with at least 64 images
      each.

  Returns:
    The plan.

  Raises:
    DatasetError: if the name is invalid, or there are no items or fewer items than shards.
  """
  if not re.fullmatch(r"\w+", name, re.ASCII):
    raise DatasetError(f"a split name must consist of letters, digits and _, received {name!r}.")
  if not items:
    raise DatasetError(f"split {name!r} would be empty.")
  if num_shards < 0 or num_shards > len(items):
    raise DatasetError(
      f"--num_shards must be between 1 and the {len(items)} images of split {name!r}, or 0 to "
      f"choose automatically, received {num_shards}."
    )
  if not num_shards:
    by_size = min(max(-(-num_bytes // _BYTES_PER_SHARD), _MIN_SHARDS), _MAX_SHARDS)
    num_shards = max(min(by_size, len(items) // _MIN_ITEMS_PER_SHARD), 1)
  return SplitPlan(items, num_shards)


def shuffled(items: Iterable[Item], seed: int, name: Callable[[Item], str]) -> list[Item]:
  """Returns the items in an order that depends only on their names and the seed."""
  return sorted(items, key=lambda item: _rank("shuffle", seed, name(item)))


def hold_out(
  items: Sequence[Item],
  fraction: float,
  seed: int,
  name: Callable[[Item], str],
  label: Callable[[Item], Hashable],
) -> tuple[list[Item], list[Item]]:
  """Holds out a fraction of every class. A larger fraction holds out a superset.

  The number of held-out items is the fraction of all items, rounded up. A class with two or more
  items has at least one item in each part.

  Args:
    items: the items to divide.
    fraction: fraction to hold out, 0 < fraction < 1.
    seed: selects which items are held out.
    name: returns the unique name of an item.
    label: returns the class of an item.

  Returns:
    (remaining items, held-out items), both in the order of `items`.

  Raises:
    DatasetError: if the fraction is not between 0 and 1.
  """
  if not 0 < fraction < 1:
    raise DatasetError(
      f"--validation_fraction must be between 0 and 1, without both; received {fraction}."
    )
  classes: dict[Hashable, list[Item]] = {}
  for item in items:
    classes.setdefault(label(item), []).append(item)
  counts = _held_out_counts([len(members) for members in classes.values()], fraction)
  held_names = set()
  for members, count in zip(classes.values(), counts, strict=True):
    ranked = sorted(members, key=lambda item: _rank("hold out", seed, name(item)))
    held_names.update(name(item) for item in ranked[:count])
  remaining = [item for item in items if name(item) not in held_names]
  held_out = [item for item in items if name(item) in held_names]
  return remaining, held_out


def _held_out_counts(class_sizes: Sequence[int], fraction: float) -> list[int]:
  """Returns the number of held-out items per class (largest remainder method, exact)."""
  exact = [size * fractions.Fraction(str(fraction)) for size in class_sizes]
  limits = [max(size - 1, 0) for size in class_sizes]
  counts = [
    min(max(math.floor(share), 1), limit) for share, limit in zip(exact, limits, strict=True)
  ]
  missing = math.ceil(sum(exact)) - sum(counts)
  by_remainder = sorted(range(len(class_sizes)), key=lambda i: counts[i] - exact[i])
  for i in [i for i in by_remainder if counts[i] < limits[i]][: max(missing, 0)]:
    counts[i] += 1
  return counts


def _rank(purpose: str, seed: int, name: str) -> bytes:
  text = f"{purpose}/{seed}/{name}".encode("utf-8", "surrogateescape")
  return hashlib.blake2b(text, digest_size=16).digest()
