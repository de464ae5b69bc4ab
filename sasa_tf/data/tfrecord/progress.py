"""The progress bar of a conversion."""

import shutil
import sys
import time

import tqdm

from sasa_tf.data.tfrecord.shard_report import ShardProgress

_COMPLAINTS_ON_SCREEN = 10


class ProgressBar:
  """The bar, with the first complaints above it.

  Attributes:
    starting_seconds: from the creation to the first report.
  """

  def __init__(self, num_items: int):
    self.starting_seconds = 0.0
    self._complaints = 0
    self._created = time.monotonic()
    # A log file wants a line now and then, not ten a second.
    interval = 0.1 if sys.stderr.isatty() else 30
    self._bar = tqdm.tqdm(
      total=num_items,
      unit=" images",
      desc="Starting TensorFlow",
      mininterval=interval,
      ncols=shutil.get_terminal_size().columns,  # tqdm hides its bar in a terminal of unknown width
    )

  def __enter__(self) -> "ProgressBar":
    return self

  def __exit__(self, *_) -> None:
    self._bar.close()

  def advance(self, progress: ShardProgress) -> None:
    """Shows what a worker reports."""
    if not self.starting_seconds:
      self.starting_seconds = time.monotonic() - self._created
      self._bar.unpause()
      self._bar.set_description("Converting")
    for complaint in progress.complaints:
      self._complaints += 1
      if self._complaints <= _COMPLAINTS_ON_SCREEN:
        self._bar.write(f"Skipped {complaint}", file=sys.stderr)
    self._bar.update(progress.items)
