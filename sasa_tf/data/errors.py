"""Errors of the data conversion."""

from sasa_tf.errors import UserError


class DatasetError(UserError):
  """An invalid input, or a failure of the machine, that stops a conversion."""


class BrokenImageError(ValueError):
  """An image that training could not read. The message names the image and the reason."""
