"""Uses a classification SavedModel on image files; needs TensorFlow only."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from typing import NamedTuple

import tensorflow as tf

from sasa_tf.data import labels
from sasa_tf.errors import UserError

# Inside of the SavedModel; servers leave assets.extra alone.
LABELS = pathlib.PurePath("assets.extra", "labels.txt")


class Prediction(NamedTuple):
  """A class and its probability."""

  label: int
  name: str
  probability: float


class Classifier:
  """A loaded SavedModel."""

  def __init__(self, saved_model: str):
    """Loads it.

    Raises:
      UserError: there is no SavedModel with a signature for encoded images.
    """
    path = pathlib.Path(saved_model)
    if not (path / "saved_model.pb").is_file():
      raise UserError(
        f"--saved_model={saved_model} is no SavedModel (no saved_model.pb in it). Make one with "
        "`python -m sasa_tf.bin.export_saved_model`."
      )
    self._model = tf.saved_model.load(saved_model)
    signatures = self._model.signatures
    name = "image_bytes" if "image_bytes" in signatures else "serving_default"
    self._signature = signatures[name]
    ((self._argument, spec),) = self._signature.structured_input_signature[1].items()
    if spec.dtype != tf.string or "probs" not in self._signature.structured_outputs:
      raise UserError(
        f"--saved_model={saved_model} has no signature that takes encoded images and returns "
        f"probs; it has {sorted(signatures)}. Export it with "
        "`python -m sasa_tf.bin.export_saved_model`."
      )
    self._batch = spec.shape[0]
    self._names = labels.read_labels(path / LABELS) if (path / LABELS).is_file() else None

  def predict(self, image: str, top_k: int = 5) -> list[Prediction]:
    """Returns the `top_k` most probable classes of an image file, the best first.

    Raises:
      UserError: the file is missing or no image.
    """
    try:
      encoded = pathlib.Path(image).read_bytes()
    except OSError as error:
      raise UserError(f"{image}: {error.strerror}. Give the path of an image file.") from error
    copies = self._batch or 1  # a fixed batch is filled with the same image
    try:
      probabilities = self._signature(**{self._argument: tf.repeat([encoded], copies)})["probs"]
    except tf.errors.InvalidArgumentError as error:
      raise UserError(
        f"{image} cannot be decoded: expected a JPEG, PNG or BMP image. {error.message[:200]}"
      ) from error
    best = tf.math.top_k(probabilities[0], min(top_k, probabilities.shape[1]))
    found = zip(best.indices.numpy().tolist(), best.values.numpy().tolist(), strict=True)
    return [Prediction(i, self._names[i] if self._names else str(i), p) for i, p in found]


def predict_all(saved_model: str, images: Sequence[str], top_k: int) -> str:
  """Returns a table of the most probable classes of each image."""
  classifier = Classifier(saved_model)
  lines = []
  for image in images:
    lines.append(image)
    for prediction in classifier.predict(image, top_k):
      bar = "#" * round(30 * prediction.probability)
      lines.append(f"  {prediction.probability:6.1%}  {prediction.name:<20} {bar}".rstrip())
  return "\n".join(lines)
