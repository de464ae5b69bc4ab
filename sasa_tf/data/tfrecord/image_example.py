"""tf.train.Examples of encoded images.

TensorFlow is imported only by the functions, because the parent of worker processes imports this
module but encodes nothing.
"""

import contextlib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from sasa_tf.data.errors import BrokenImageError, DatasetError

_SIGNATURES = {b"\xff\xd8\xff": "jpeg", b"\x89PNG\r\n\x1a\n": "png"}
# Whether training can decode these formats depends on its settings.
_OTHER_SIGNATURES = {b"GIF8": "GIF", b"BM": "BMP", b"RIFF": "WebP", b"II*\0": "TIFF"}


class Problem(NamedTuple):
  """An invalid annotation.

  Attributes:
    kind: the category that statistics count it under.
    message: one line that names the annotation, what is wrong and what was done.
  """

  kind: str
  message: str

  def as_error(self) -> DatasetError:
    """Returns the error that --strict raises."""
    return DatasetError(f"{self.message}\nFix the annotation, or omit --strict to skip it.")


class EncodedExample(NamedTuple):
  """A serialized tf.train.Example, with what the writer collects from it.

  Attributes:
    serialized: the example.
    image_format: format of its image, "jpeg" or "png".
    problems: invalid annotations of the image.
    annotations: what the split's `AnnotationHooks` need to know about the example; None where
      there are no hooks.
  """

  serialized: bytes
  image_format: str
  problems: Sequence[Problem] = ()
  annotations: Any = None


class ImageInfo(NamedTuple):
  """Format ("jpeg" or "png"), height and width of an encoded image."""

  format: str
  height: int
  width: int


def inspect_image(encoded: bytes) -> ImageInfo:
  """Decodes an image to verify that training can.

  Args:
    encoded: content of a JPEG or PNG file, regardless of the file's name.

  Returns:
    Its format, height and width.

  Raises:
    BrokenImageError: if it is empty, truncated, corrupt or of another format.
  """
  import tensorflow as tf

  image_format = _format(encoded)
  try:
    with _suppressed_stderr():
      image = tf.io.decode_image(encoded, channels=3, expand_animations=False)
  except tf.errors.InvalidArgumentError as error:
    reason = re.sub(r"{{.*?}} |jpeg::Uncompress failed. | \[Op:\w+\]", "", error.message)
    raise BrokenImageError(
      f"truncated or corrupt {image_format.upper()} (TensorFlow: {reason.rstrip('. ')})"
    ) from error
  height, width, _ = image.shape
  return ImageInfo(image_format, height, width)


def image_features(encoded: bytes, info: ImageInfo, filename: str) -> dict[str, list[Any]]:
  """Returns the features that all examples of images have.

  Args:
    encoded: content of the image file.
    info: what `inspect_image` returned for it.
    filename: name of the image, stored in the example.
  """
  return {
    "image/encoded": [encoded],
    "image/format": [info.format.encode()],
    "image/height": [info.height],
    "image/width": [info.width],
    "image/filename": [filename.encode("utf-8", "surrogateescape")],
  }


def serialize(features: Mapping[str, Sequence[bytes | int | float]]) -> bytes:
  """Serializes a tf.train.Example deterministically: equal features give equal bytes.

  Args:
    features: {name: values}; the values of one feature have the same type.

  Raises:
    TypeError: if a feature has values of other or mixed types.
  """
  import tensorflow as tf

  example = tf.train.Example()
  for name, values in features.items():
    types = {type(value) for value in values}
    feature = example.features.feature[name]
    if types <= {bytes}:
      feature.bytes_list.value.extend(values)
    elif types == {int}:
      feature.int64_list.value.extend(values)
    elif types == {float}:
      feature.float_list.value.extend(values)
    else:
      raise TypeError(f"feature {name!r} must hold bytes, ints or floats, received {types}.")
  return example.SerializeToString(deterministic=True)


def _format(encoded: bytes) -> str:
  if not encoded:
    raise BrokenImageError("empty file")
  for signature, name in _SIGNATURES.items():
    if encoded.startswith(signature):
      return name
  for signature, name in _OTHER_SIGNATURES.items():
    if encoded.startswith(signature):
      raise BrokenImageError(f"{name} data in a file named as JPEG or PNG")
  raise BrokenImageError(f"neither JPEG nor PNG data (begins with {encoded[:8]!r})")


@contextlib.contextmanager
def _suppressed_stderr() -> Iterator[None]:
  """Hides what libjpeg and libpng print, which would break up the progress bar."""
  stderr = os.dup(2)
  devnull = os.open(os.devnull, os.O_WRONLY)
  try:
    os.dup2(devnull, 2)
    yield
  finally:
    os.dup2(stderr, 2)
    os.close(devnull)
    os.close(stderr)
