"""What a worker tells its parent; apart from shard.py so that the parent needs no TensorFlow."""

from typing import NamedTuple

from sasa_tf.data.detection.boxes import CheckedImage, Problem


class ShardProgress(NamedTuple):
  """Items finished since the last report, and a complaint for each broken one among them.

  The first report of a shard, of no items, says that TensorFlow has started.
  """

  items: int
  complaints: list[str]


class ShardResult(NamedTuple):
  """What became of a shard's items, in order.

  Attributes:
    formats: number of examples written, by image format.
    complaints: one for each item skipped.
    problems: what was wrong with annotations of the examples.
    images: the boxes of each example, if it has boxes at all.
  """

  formats: dict[str, int]
  complaints: list[str]
  problems: list[Problem]
  images: list[CheckedImage]
