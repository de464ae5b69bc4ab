"""tf.train.Examples of encoded images.

TensorFlow is imported only by the functions, because the parent of worker processes imports this
module but encodes nothing.
"""

import contextlib
import functools
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from sasa_tf import extras
from sasa_tf.data.errors import BrokenImageError, DatasetError
from sasa_tf.data.images import image_header, notes
from sasa_tf.data.images.corruption import find_corruption
from sasa_tf.data.images.options import ImageOptions
from sasa_tf.errors import MissingExtraError

# What libjpeg prints about invalid data. Other warnings are about unusual headers.
_LIBJPEG_WARNINGS = re.compile(
  r"^(Corrupt JPEG data|Premature end of JPEG file|Inconsistent progression sequence).*", re.M
)
_SIGNATURES = {b"\xff\xd8\xff": "jpeg", b"\x89PNG\r\n\x1a\n": "png"}
# Whether training can decode these formats depends on its settings.
_OTHER_SIGNATURES = {b"GIF8": "GIF", b"BM": "BMP", b"RIFF": "WebP", b"II*\0": "TIFF"}


class Problem(NamedTuple):
  """An invalid annotation.

  Attributes:
    kind: the category that statistics count it under.
    message: one line that names the annotation, what is wrong and, after the last comma, what was
      done.
  """

  kind: str
  message: str

  def as_error(self) -> DatasetError:
    """Returns the error that --strict raises."""
    fault, _, outcome = self.message.rpartition(", ")
    return DatasetError(
      f"{fault}.\nFix the annotation, or omit --strict to continue (then: {outcome})."
    )


class EncodedExample(NamedTuple):
  """A serialized tf.train.Example, with what the writer collects from it.

  Attributes:
    serialized: the example.
    image_format: format of its image, "jpeg" or "png".
    problems: invalid annotations of the image.
    annotations: what the split's `AnnotationHooks` need to know about the example; None where
      there are no hooks.
    notes: what was done to the image, names of `images.notes`.
  """

  serialized: bytes
  image_format: str
  problems: Sequence[Problem] = ()
  annotations: Any = None
  notes: Sequence[str] = ()


class LoadedImage(NamedTuple):
  """An image as its record stores it.

  Attributes:
    encoded: the file's content; encoded again if its pixels had to be turned.
    format: "jpeg" or "png".
    height: height of the displayed image.
    width: width of the displayed image.
    orientation: EXIF orientation of the file, from 1 to 8. The stored pixels of the file are turned
      if it is not 1.
    notes: see `EncodedExample`.
  """

  encoded: bytes
  format: str
  height: int
  width: int
  orientation: int = 1
  notes: Sequence[str] = ()

  @property
  def stored_size(self) -> tuple[int, int]:
    """(height, width) of the stored pixels of the file."""
    return (self.width, self.height) if self.orientation >= 5 else (self.height, self.width)


def load_image(encoded: bytes, options: ImageOptions | None = None) -> LoadedImage:
  """Checks that training can decode an image, and turns it upright as its EXIF tag says.

  Args:
    encoded: content of a JPEG or PNG file, regardless of the file's name.
    options: limits and checks. None for the default.

  Returns:
    The image to store. Its content is unchanged if there is nothing to turn.

  Raises:
    BrokenImageError: if it is empty, truncated, corrupt, of another format or too large.
  """
  options = options or ImageOptions()
  image_format = _format(encoded)
  size = image_header.stored_size(encoded, image_format)
  if size and size[0] * size[1] > options.max_pixels:
    raise BrokenImageError(
      f"{size[1]:,} x {size[0]:,} pixels are more than --max_pixels={options.max_pixels}. Reduce "
      "the image, or raise the limit"
    )
  height, width, warnings = _decoded_size(encoded, image_format)
  if options.verify == "full":
    problem = warnings[0] if warnings else find_corruption(encoded, image_format)
    if problem:
      raise BrokenImageError(f"corrupt {image_format.upper()} ({problem})")
  found = [notes.DECODER_WARNING] if warnings else []
  orientation = 1
  if image_header.may_have_exif(encoded, image_format):
    orientation = int(_exif_orientation()(encoded))
  if orientation == 1:
    return LoadedImage(encoded, image_format, height, width, notes=found)
  return LoadedImage(
    _upright_file(encoded, image_format, orientation),
    image_format,
    *((width, height) if orientation >= 5 else (height, width)),
    orientation,
    [*found, notes.TURNED],
  )


def image_features(image: LoadedImage, filename: str) -> dict[str, list[Any]]:
  """Returns the features that all examples of images have.

  Args:
    image: what `load_image` returned.
    filename: name of the image, stored in the example.
  """
  return {
    "image/encoded": [image.encoded],
    "image/format": [image.format.encode()],
    "image/height": [image.height],
    "image/width": [image.width],
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


def _decoded_size(encoded: bytes, image_format: str) -> tuple[int, int, list[str]]:
  """Decodes an image and returns its height, width and the decoder's warnings."""
  import tensorflow as tf

  try:
    with _captured_messages() as warnings:
      image = tf.io.decode_image(encoded, channels=3, expand_animations=False)
  except tf.errors.InvalidArgumentError as error:
    reason = re.sub(r"{{.*?}} |jpeg::Uncompress failed. | \[Op:\w+\]", "", error.message)
    raise BrokenImageError(
      f"truncated or corrupt {image_format.upper()} (TensorFlow: {reason.rstrip('. ')})"
    ) from error
  height, width, _ = image.shape
  return height, width, warnings


def _upright_file(encoded: bytes, image_format: str, orientation: int) -> bytes:
  try:
    extras.require("turning images as their EXIF orientation says", "PIL")
  except MissingExtraError as error:
    raise DatasetError(str(error)) from error  # which worker processes report
  # Most data sets do not need Pillow.
  from sasa_tf.data.images.upright_file import upright_file

  return upright_file(encoded, image_format, orientation)


@functools.cache
def _exif_orientation() -> Callable[[bytes], Any]:
  """Returns the function that reads the orientation, compiled to a graph."""
  import tensorflow as tf

  from sasa_tf.data.images.orientation import exif_orientation

  return tf.function(exif_orientation, input_signature=[tf.TensorSpec([], tf.string)])


@contextlib.contextmanager
def _captured_messages() -> Iterator[list[str]]:
  """Captures what libjpeg and libpng print, which would break up the progress bar.

  Yields:
    A list, to which libjpeg's warnings about invalid data are added at the end.
  """
  warnings: list[str] = []
  messages = os.memfd_create("decoder messages")
  stderr = os.dup(2)
  try:
    os.dup2(messages, 2)
    yield warnings
  finally:
    os.dup2(stderr, 2)
    os.close(stderr)
    if length := os.lseek(messages, 0, os.SEEK_END):
      text = os.pread(messages, length, 0).decode("utf-8", "replace")
      warnings += [match.group() for match in _LIBJPEG_WARNINGS.finditer(text)]
    os.close(messages)
