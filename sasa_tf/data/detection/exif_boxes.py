"""Boxes of images whose EXIF orientation turns them for display.

Some annotation tools show the stored pixels, others the displayed image. The annotated size says
which if height and width differ and the orientation swaps them.
"""

from __future__ import annotations

from typing import NamedTuple

from sasa_tf.data.detection.boxes import AnnotatedImage, Box
from sasa_tf.data.images import notes
from sasa_tf.data.tfrecord.image_example import LoadedImage


class BoxFrame(NamedTuple):
  """The pixels that the boxes of an image refer to.

  Attributes:
    height: height of these pixels.
    width: width of these pixels.
    orientation: the orientation that turns boxes to the displayed image; 1 if they refer to it.
    notes: how the frame was decided, names of `images.notes`.
  """

  height: int
  width: int
  orientation: int = 1
  notes: tuple[str, ...] = ()


def box_frame(image: AnnotatedImage, loaded: LoadedImage, exif_boxes: str) -> BoxFrame:
  """Decides whether the boxes of an image refer to the displayed image or to the stored pixels.

  Args:
    image: the annotations. Their size, if any, is the stored or the displayed one.
    loaded: the image, turned upright.
    exif_boxes: the decision if the annotated size fits both, or is missing: "displayed" or
      "stored".
  """
  displayed, stored = (loaded.height, loaded.width), loaded.stored_size
  undecided = displayed == stored or not image.size
  if exif_boxes == "displayed" if undecided else image.size == displayed:
    note = notes.DISPLAYED_BY_FLAG if undecided else notes.DISPLAYED_BY_SIZE
    return BoxFrame(*displayed, notes=(note,) if image.boxes else ())
  note = notes.STORED_BY_FLAG if undecided else notes.STORED_BY_SIZE
  return BoxFrame(*stored, loaded.orientation, (note,) if image.boxes else ())


def turn_box(box: Box, height: int, width: int, orientation: int) -> Box:
  """Turns a box from the stored pixels to the displayed image.

  Args:
    box: box within the stored pixels.
    height: height of the stored pixels.
    width: width of the stored pixels.
    orientation: EXIF orientation, from 1 to 8.
  """
  xmin, ymin, xmax, ymax = box[:4]
  if orientation >= 5:
    xmin, ymin, xmax, ymax = ymin, xmin, ymax, xmax
    height, width = width, height
  if orientation in (2, 3, 6, 7):
    xmin, xmax = width - xmax, width - xmin
  if orientation in (3, 4, 7, 8):
    ymin, ymax = height - ymax, height - ymin
  return box._replace(xmin=xmin, ymin=ymin, xmax=xmax, ymax=ymax)
