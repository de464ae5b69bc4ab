"""Scenes of scikit-learn's handwritten digits with boxes: a detection data set without a download.

The digits of validation scenes are not among those of training scenes. A scene depends on the seed,
its split and its number alone, so that fewer images of a split are the first of more.
"""

import functools
import os
import pathlib
from typing import TYPE_CHECKING, NamedTuple

from sasa_tf.data.classification.digits import CLASS_NAMES, PICTURES, divided_digits
from sasa_tf.data.detection.box_classes import numbered_classes
from sasa_tf.data.detection.boxes import AnnotatedImage, Box
from sasa_tf.data.errors import DatasetError
from sasa_tf.data.preview_images import write_pictures
from sasa_tf.data.tfrecord.sharded_writer import DatasetSummary, plan_split, write_dataset

if TYPE_CHECKING:
  import numpy as np

  from sasa_tf.data.detection.scene_drawing import Scene
  from sasa_tf.data.examples import EncodedExample

_SIZES = (32, 2048)
_JPEG_QUALITY = 95
_SHEET = "with_boxes.png"
_OURS = rf"validation-\d{{6}}\.(jpg|png)|{_SHEET}"
_SPLITS = ("train", "validation")


class SceneSettings(NamedTuple):
  """What all scenes of a data set have in common."""

  size: int
  image_format: str
  seed: int


class SceneNumber(NamedTuple):
  """Which scene to draw: its split, its number in it from 0, its number in the data set from 1."""

  split: str
  index: int
  source_id: int


def convert(
  output: str | os.PathLike,
  *,
  train_images: int = 2000,
  validation_images: int = 200,
  size: int = 128,
  image_format: str = "jpeg",
  pictures: int = 10,
  seed: int = 0,
  num_processes: int = 0,
  overwrite: bool = False,
) -> DatasetSummary:
  """Draws scenes of one to six digits in many sizes and colours, which do not touch each other.

  Args:
    output: where to write.
    train_images: number of scenes of split "train".
    validation_images: number of scenes of split "validation".
    size: height and width in pixels.
    image_format: "jpeg" or "png".
    pictures: number of validation scenes to write as files in output/pictures too, beside a sheet
      of them with their boxes.
    seed: another seed draws other scenes.
    num_processes: worker processes, 0 for automatic, 1 for this process.
    overwrite: whether to replace finished splits.

  Returns:
    Figures of the splits.

  Raises:
    DatasetError: nothing was written, and why.
  """
  if not _SIZES[0] <= size <= _SIZES[1]:
    raise DatasetError(
      f"--size must lie between {_SIZES[0]} and {_SIZES[1]} pixels, received {size}."
    )
  if image_format not in ("jpeg", "png"):
    raise DatasetError(f"--image_format must be jpeg or png, received {image_format!r}.")
  if not 0 <= pictures <= validation_images:
    raise DatasetError(
      f"--pictures must lie between 0 and the {validation_images} validation scenes, received "
      f"{pictures}."
    )
  numbers = {"train": train_images, "validation": validation_images}
  if min(numbers.values()) < 1:
    raise DatasetError(
      "--train_images and --validation_images must be 1 or more, received "
      f"{train_images} and {validation_images}."
    )
  if seed < 0:
    raise DatasetError(f"--seed must be 0 or more, received {seed}.")
  settings = SceneSettings(size, image_format, seed)
  classes = numbered_classes(CLASS_NAMES)
  summary = write_dataset(
    output,
    {
      split: plan_split(
        split,
        [SceneNumber(split, i, i + 1 + _SPLITS.index(split) * train_images) for i in range(number)],
        number * size**2,
      )
      for split, number in numbers.items()
    },
    classes.labels,
    functools.partial(_encode, settings=settings, class_names=classes.labels),
    categories=classes.categories,
    num_processes=num_processes,
    overwrite=overwrite,
  )
  write_pictures(pathlib.Path(output) / PICTURES, _pictures(pictures, settings), _OURS)
  return summary


def _encode(
  number: SceneNumber, settings: SceneSettings, class_names: tuple[str, ...]
) -> "EncodedExample":
  from sasa_tf.data.detection.detection_examples import detection_example

  scene = _scene(number.split, number.index, settings)
  name = _filename(number.split, number.index, settings)
  boxes = [
    Box(*map(float, corners), digit + 1, name=f"digit {position}")
    for position, (*corners, digit) in enumerate(scene.boxes, start=1)
  ]
  image = AnnotatedImage(name, name, number.source_id, name, scene.picture.shape[:2], boxes)
  return detection_example(_encoded(scene.picture, settings.image_format), image, class_names)


def _scene(split: str, index: int, settings: SceneSettings) -> "Scene":
  import numpy as np

  from sasa_tf.data.detection.scene_drawing import draw_scene

  random = np.random.default_rng([settings.seed, _SPLITS.index(split), index])
  return draw_scene(settings.size, _digits(split, settings.seed), random)


@functools.cache
def _digits(split: str, seed: int) -> "list[tuple[int, np.ndarray]]":
  import numpy as np

  digits = divided_digits(seed)[_SPLITS.index(split)]
  return [
    (digit.label, np.frombuffer(digit.grey_levels, np.uint8).reshape(8, 8)) for digit in digits
  ]


def _filename(split: str, index: int, settings: SceneSettings) -> str:
  return f"{split}-{index:06d}.{'jpg' if settings.image_format == 'jpeg' else 'png'}"


def _encoded(picture: "np.ndarray", image_format: str) -> bytes:
  import tensorflow as tf

  if image_format == "png":
    return tf.io.encode_png(picture).numpy()
  return tf.io.encode_jpeg(picture, quality=_JPEG_QUALITY).numpy()


def _pictures(number: int, settings: SceneSettings) -> dict[str, bytes]:
  """Returns {file name: content} of the first validation scenes and of the sheet."""
  if not number:
    return {}
  import numpy as np

  from sasa_tf.data.detection.scene_drawing import outlined

  scenes = [_scene("validation", i, settings) for i in range(number)]
  files = {
    _filename("validation", i, settings): _encoded(scene.picture, settings.image_format)
    for i, scene in enumerate(scenes)
  }
  return {**files, _SHEET: _encoded(np.concatenate([*map(outlined, scenes)], axis=1), "png")}
