"""What an encoded image is, found out by decoding it as training will."""

import contextlib
import os
import re
from collections.abc import Iterator
from typing import NamedTuple

import tensorflow as tf

from sasa_tf.data.errors import BrokenImageError

_SIGNATURES = {b"\xff\xd8\xff": "jpeg", b"\x89PNG\r\n\x1a\n": "png"}
# Training would fail on these or not, depending on its settings; their names promise otherwise.
_OTHER_SIGNATURES = {b"GIF8": "GIF", b"BM": "BMP", b"RIFF": "WebP", b"II*\0": "TIFF"}


class ImageFacts(NamedTuple):
  """Format ("jpeg" or "png") and size in pixels of an encoded image."""

  format: str
  height: int
  width: int


def inspect_image(encoded: bytes) -> ImageFacts:
  """Decodes an image to be certain that training can.

  Args:
    encoded: the bytes of a JPEG or PNG file, whatever its name said.

  Returns:
    Its format, height and width.

  Raises:
    BrokenImageError: it is empty, of another format, truncated or damaged.
  """
  image_format = _format(encoded)
  try:
    with _silent_decoders():
      image = tf.io.decode_image(encoded, channels=3, expand_animations=False)
  except tf.errors.InvalidArgumentError as error:
    reason = re.sub(r"{{.*?}} |jpeg::Uncompress failed. | \[Op:\w+\]", "", error.message)
    raise BrokenImageError(
      f"truncated or damaged {image_format.upper()} (TensorFlow: {reason.rstrip('. ')})"
    ) from error
  height, width, _ = image.shape
  return ImageFacts(image_format, height, width)


def _format(encoded: bytes) -> str:
  if not encoded:
    raise BrokenImageError("empty file")
  for signature, name in _SIGNATURES.items():
    if encoded.startswith(signature):
      return name
  for signature, name in _OTHER_SIGNATURES.items():
    if encoded.startswith(signature):
      raise BrokenImageError(f"{name} data under the name of a JPEG or PNG")
  raise BrokenImageError(f"neither JPEG nor PNG data (begins with {encoded[:8]!r})")


@contextlib.contextmanager
def _silent_decoders() -> Iterator[None]:
  """The C libraries print their own complaints, nameless, in the middle of a progress bar."""
  stderr = os.dup(2)
  silence = os.open(os.devnull, os.O_WRONLY)
  try:
    os.dup2(silence, 2)
    yield
  finally:
    os.dup2(stderr, 2)
    os.close(silence)
    os.close(stderr)
