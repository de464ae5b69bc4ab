"""The two errors of this room."""

from sasa_tf.errors import UserError


class DatasetError(UserError):
  """A fault of the input or of the machine that stops a conversion."""


class BrokenImageError(ValueError):
  """An image that training could not read; the message names the image and the reason."""
