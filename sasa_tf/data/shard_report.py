"""What a worker tells its parent; apart from shard.py so that the parent needs no TensorFlow."""

from typing import NamedTuple


class ShardProgress(NamedTuple):
  """Items finished since the last report, and a complaint for each broken one among them.

  The first report of a shard, of no items, says that TensorFlow has started.
  """

  items: int
  complaints: list[str]


class ShardResult(NamedTuple):
  """Examples written, by image format, and a complaint for each item skipped, in order."""

  formats: dict[str, int]
  complaints: list[str]
