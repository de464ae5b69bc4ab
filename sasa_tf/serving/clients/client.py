"""Runs a classifier or detector on image files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from sasa_tf.errors import UserError
from sasa_tf.serving.clients.classification_client import classification_lines
from sasa_tf.serving.clients.encoded_image_model import EncodedImageModel

TOP_K = 3
SCORE_THRESHOLD = 0.5


def predict_all(
  model: EncodedImageModel,
  images: Sequence[str],
  *,
  top_k: int | None = None,
  score_threshold: float | None = None,
  output: str | None = None,
) -> Iterator[str]:
  """Yields the lines of a table: the classes of each image, or the objects in it.

  Args:
    model: its outputs determine the task.
    images: paths of the image files.
    top_k: Classifiers only: number of classes per image. Defaults to `TOP_K`.
    score_threshold: Detectors only: minimum score of an object. Defaults to `SCORE_THRESHOLD`.
    output: Detectors only: directory for images with drawn boxes. None draws nothing.

  Raises:
    UserError: If an argument belongs to the other task.
    UnreadableImageError: After the lines of the other images, if an image cannot be read.
  """
  if "detection_boxes" in model.outputs:
    if top_k is not None:
      raise UserError(f"{model.source} is a detector: --top_k is for classifiers. Remove the flag.")
    from sasa_tf.serving.clients.detection_client import detection_lines

    threshold = SCORE_THRESHOLD if score_threshold is None else score_threshold
    yield from detection_lines(model, images, threshold, output)
    return
  for flag, value in {"score_threshold": score_threshold, "output": output}.items():
    if value is not None:
      raise UserError(
        f"{model.source} is a classifier: --{flag} is for detectors. Remove the flag."
      )
  yield from classification_lines(model, images, TOP_K if top_k is None else top_k)
