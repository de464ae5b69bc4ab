"""Generates scenes of scikit-learn's digits with boxes: a detection data set without a download.

Training and validation scenes show different digits. A scene depends only on the seed, its split
and its index, so that a smaller data set is a prefix of a larger one.
"""

import functools
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

from sasa_tf.data.classification.digits import CLASS_NAMES, train_and_validation_digits
from sasa_tf.data.detection.annotated_images import BoxHooks, detection_example
from sasa_tf.data.detection.boxes import AnnotatedImage, Box, classes_of_names
from sasa_tf.data.errors import DatasetError
from sasa_tf.data.preview_images import write_preview_images
from sasa_tf.data.tfrecord.image_example import EncodedExample
from sasa_tf.data.tfrecord.sharded_writer import DatasetSummary, write_dataset
from sasa_tf.data.tfrecord.splits import plan_split

if TYPE_CHECKING:
  import numpy as np

  from sasa_tf.data.detection.scene_drawing import Scene

_SIZE_RANGE = (32, 2048)
_JPEG_QUALITY = 95
_ANNOTATED_PREVIEW = "with_boxes.png"
_PREVIEW_FILES = rf"validation-\d{{6}}\.(jpg|png)|{_ANNOTATED_PREVIEW}"
_SPLITS = ("train", "validation")
_MAX_IMAGES = 10_000_000


class SceneSettings(NamedTuple):
  """Settings shared by all scenes of a data set."""

  size: int
  image_format: str
  seed: int


class SceneId(NamedTuple):
  """Identifies a scene: its split, its index there from 0, its image id from 1."""

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
  num_preview_images: int = 10,
  seed: int = 0,
  num_processes: int = 0,
  overwrite: bool = False,
) -> DatasetSummary:
  """Generates scenes of one to six digits of many sizes and colors that do not touch each other.

  Args:
    output: the directory to write to.
    train_images: number of scenes of split "train".
    validation_images: number of scenes of split "validation".
    size: height and width in pixels.
    image_format: "jpeg" or "png".
    num_preview_images: number of validation scenes to write also as files in
      output/preview_images, with an image that shows their boxes.
    seed: determines the scenes.
    num_processes: worker processes; 0 chooses the number, 1 writes in this process.
    overwrite: whether to replace finished splits.

  Returns:
    Statistics of the splits.

  Raises:
    DatasetError: if nothing was written.
  """
  settings = SceneSettings(size, image_format, seed)
  num_images = {"train": train_images, "validation": validation_images}
  _check_settings(settings, num_images, num_preview_images)
  classes = classes_of_names(CLASS_NAMES)
  summary = write_dataset(
    output,
    {
      split: plan_split(
        split,
        [SceneId(split, i, i + 1 + _SPLITS.index(split) * train_images) for i in range(number)],
        number * size**2,
      )
      for split, number in num_images.items()
    },
    classes.class_names,
    functools.partial(_encode, settings=settings, class_names=classes.class_names),
    hooks=BoxHooks(classes.categories),
    num_processes=num_processes,
    overwrite=overwrite,
  )
  write_preview_images(output, _preview_images(num_preview_images, settings), _PREVIEW_FILES)
  return summary


def _check_settings(
  settings: SceneSettings, num_images: Mapping[str, int], num_preview_images: int
) -> None:
  if not _SIZE_RANGE[0] <= settings.size <= _SIZE_RANGE[1]:
    raise DatasetError(
      f"--size must be between {_SIZE_RANGE[0]} and {_SIZE_RANGE[1]} pixels, received "
      f"{settings.size}."
    )
  if settings.image_format not in ("jpeg", "png"):
    raise DatasetError(f"--image_format must be jpeg or png, received {settings.image_format!r}.")
  if not 0 <= num_preview_images <= num_images["validation"]:
    raise DatasetError(
      f"--num_preview_images must be between 0 and the {num_images['validation']} validation "
      f"scenes, received {num_preview_images}."
    )
  if not 1 <= min(num_images.values()) <= max(num_images.values()) <= _MAX_IMAGES:
    raise DatasetError(
      f"--train_images and --validation_images must be 1 to {_MAX_IMAGES:,}, received "
      f"{num_images['train']} and {num_images['validation']}."
    )
  if settings.seed < 0:
    raise DatasetError(f"--seed must be 0 or more, received {settings.seed}.")


def _encode(
  scene_id: SceneId, settings: SceneSettings, class_names: tuple[str, ...]
) -> EncodedExample:
  scene = _scene(scene_id.split, scene_id.index, settings)
  name = _filename(scene_id.split, scene_id.index, settings)
  boxes = [
    Box(*map(float, corners), digit + 1, name=f"digit {position}")
    for position, (*corners, digit) in enumerate(scene.boxes, start=1)
  ]
  image = AnnotatedImage(name, name, scene_id.source_id, name, scene.image.shape[:2], boxes)
  return detection_example(_encode_image(scene.image, settings.image_format), image, class_names)


def _scene(split: str, index: int, settings: SceneSettings) -> "Scene":
  import numpy as np

  from sasa_tf.data.detection.scene_drawing import draw_scene

  random = np.random.default_rng([settings.seed, _SPLITS.index(split), index])
  return draw_scene(settings.size, _digits(split, settings.seed), random)


@functools.cache
def _digits(split: str, seed: int) -> "list[tuple[int, np.ndarray]]":
  import numpy as np

  digits = train_and_validation_digits(seed)[_SPLITS.index(split)]
  return [
    (digit.label, np.frombuffer(digit.gray_levels, np.uint8).reshape(8, 8)) for digit in digits
  ]


def _filename(split: str, index: int, settings: SceneSettings) -> str:
  return f"{split}-{index:06d}.{'jpg' if settings.image_format == 'jpeg' else 'png'}"


def _encode_image(image: "np.ndarray", image_format: str) -> bytes:
  import tensorflow as tf

  if image_format == "png":
    return tf.io.encode_png(image).numpy()
  return tf.io.encode_jpeg(image, quality=_JPEG_QUALITY).numpy()


def _preview_images(number: int, settings: SceneSettings) -> dict[str, bytes]:
  """Returns {file name: content} of the first validation scenes, without and with boxes."""
  if not number:
    return {}
  import numpy as np

  from sasa_tf.data.detection.scene_drawing import draw_boxes

  scenes = [_scene("validation", i, settings) for i in range(number)]
  files = {
    _filename("validation", i, settings): _encode_image(scene.image, settings.image_format)
    for i, scene in enumerate(scenes)
  }
  with_boxes = np.concatenate([draw_boxes(scene) for scene in scenes], axis=1)
  return {**files, _ANNOTATED_PREVIEW: _encode_image(with_boxes, "png")}
