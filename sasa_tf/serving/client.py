"""Uses a SavedModel of this project on image files, whichever its task is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from sasa_tf.errors import UserError
from sasa_tf.serving.classifier import classification_lines
from sasa_tf.serving.loading import EncodedImageModel

TOP_K = 3
SCORE_THRESHOLD = 0.5


def predict_all(
  saved_model: str,
  images: Sequence[str],
  *,
  top_k: int | None = None,
  score_threshold: float | None = None,
  output: str | None = None,
) -> Iterator[str]:
  """Yields the lines of a table: classes of each image, or the objects on it.

  Args:
    saved_model: directory; what its signature returns says which.
    images: paths of image files.
    top_k: classes of an image; `TOP_K` by default.
    score_threshold: the least score of an object; `SCORE_THRESHOLD` by default.
    output: directory to draw the objects into, or None.

  Raises:
    UserError: model or image cannot be read, or an argument belongs to the other task.
  """
  model = EncodedImageModel(saved_model)
  if "detection_boxes" in model.outputs:
    if top_k is not None:
      raise UserError(
        f"--saved_model={saved_model} detects objects: --top_k is of classes. Leave it away."
      )
    from sasa_tf.serving.detector import detection_lines

    threshold = SCORE_THRESHOLD if score_threshold is None else score_threshold
    yield from detection_lines(model, images, threshold, output)
    return
  for flag, value in {"score_threshold": score_threshold, "output": output}.items():
    if value is not None:
      raise UserError(
        f"--saved_model={saved_model} classifies whole images: --{flag} is of detectors. Leave it "
        "away."
      )
  yield from classification_lines(model, images, TOP_K if top_k is None else top_k)
