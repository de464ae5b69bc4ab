"""Images that a client cannot read: the others are processed first, then these are reported."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from sasa_tf.data.inputs.values import one_line
from sasa_tf.errors import UserError

_MAX_LISTED = 10


class UnreadableImageError(UserError):
  """An image file does not exist, or is not an image."""


class UnreadableImages:
  """Collects errors of images."""

  def __init__(self) -> None:
    self._messages: list[str] = []

  @contextlib.contextmanager
  def collected(self) -> Iterator[None]:
    """Suppresses the error of an image in its context, and keeps it for `raise_errors`."""
    try:
      yield
    except UnreadableImageError as error:
      self._messages.append(one_line(str(error)))

  def raise_errors(self, num_images: int) -> None:
    """Raises an error that lists the images which could not be read, if there are any.

    Args:
      num_images: number of all images.
    """
    if not self._messages:
      return
    if num_images == 1:
      raise UnreadableImageError(self._messages[0])
    lines = self._messages[:_MAX_LISTED]
    if omitted := len(self._messages) - len(lines):
      lines.append(f"and {omitted} more.")
    raise UnreadableImageError(
      f"{len(self._messages)} of {num_images} images cannot be read:\n  " + "\n  ".join(lines)
    )
