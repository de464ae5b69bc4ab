"""Runs exported models and presets on image files."""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from sasa_tf.compat.glob_free_paths import glob_free_path
from sasa_tf.data import labels
from sasa_tf.data.images.options import MIN_CLASSIFIED_SIDE
from sasa_tf.data.images.pixel_limit import bomb_problem
from sasa_tf.data.inputs.regular_files import find_irregular, read_bytes
from sasa_tf.errors import UserError
from sasa_tf.ops import kernel_status
from sasa_tf.serving.clients.unreadable_images import UnreadableImageError
from sasa_tf.serving.compiled_kernels.library_file import STOCK_SUFFIX
from sasa_tf.serving.formats.saved_model import LABELS


class EncodedImageModel:
  """A model that takes encoded images.

  Attributes:
    source: what the model was loaded from, for messages.
    outputs: names of the outputs.
  """

  def __init__(
    self,
    source: str,
    run: Callable[[tf.Tensor], Mapping[str, tf.Tensor]],
    *,
    batch_size: int | None,
    outputs: Iterable[str],
    class_names: Sequence[str] | None,
  ):
    """Wraps a function of a batch of encoded images, strings [B].

    Args:
      source: see above.
      run: returns the outputs, each with the batch axis first.
      batch_size: fixed batch size. None if it is dynamic.
      outputs: names of the outputs.
      class_names: in label order; None if they are unknown.
    """
    self.source = source
    self.outputs = frozenset(outputs)
    self._run, self._batch, self._names = run, batch_size, class_names

  @classmethod
  def from_saved_model(cls, saved_model: str) -> EncodedImageModel:
    """Loads a SavedModel directory. Requires TensorFlow only.

    Raises:
      UserError: If there is no SavedModel with a signature for encoded images.
    """
    path = pathlib.Path(saved_model)
    if not (path / "saved_model.pb").is_file():
      inside = path / "saved_model"
      if "://" in saved_model:
        raise UserError(
          f"--saved_model={saved_model} is a remote address; expected a local directory. Copy it."
        )
      cure = (
        f"It holds {inside}: pass that."
        if (inside / "saved_model.pb").is_file()
        else "Create one with `python -m sasa_tf.bin.export_saved_model`."
      )
      raise UserError(
        f"--saved_model={saved_model} is not a SavedModel: it has no saved_model.pb. {cure}"
      )
    model = _load(saved_model)
    signatures = model.signatures
    name = signature_name(signatures)
    signature = signatures.get(name)
    inputs = signature.structured_input_signature[1] if signature else {}
    outputs = signature.structured_outputs.keys() if signature else set()
    is_image = [spec.dtype for spec in inputs.values()] == [tf.string]
    if not is_image or not outputs & {"probs", "detection_boxes"}:
      raise UserError(
        f"--saved_model={saved_model} has no signature that takes encoded images and returns "
        f"probs or detection_boxes; it has {sorted(signatures)}. Export it with "
        "`python -m sasa_tf.bin.export_saved_model`."
      )
    ((argument, spec),) = inputs.items()

    def run(encoded: tf.Tensor) -> Mapping[str, tf.Tensor]:
      return model.signatures[name](**{argument: encoded})  # the model holds the variables

    names = labels.read_labels(path / LABELS) if (path / LABELS).is_file() else None
    return cls(
      f"--saved_model={saved_model}",
      run,
      batch_size=spec.shape[0],
      outputs=outputs,
      class_names=names,
    )

  @classmethod
  def from_module(
    cls, source: str, module: Any, class_names: Sequence[str] | None
  ) -> EncodedImageModel:
    """Wraps an export module with its weights.

    Args:
      source: where the weights are from, for messages.
      module: see `restored_module`.
      class_names: in label order; None if they are unknown.
    """
    kind = "image_bytes"
    signature = module.get_inference_signatures({kind: kind})[kind]
    return cls(
      source,
      signature,
      batch_size=module.batch_size,
      outputs=signature.structured_outputs,
      class_names=class_names,
    )

  def name_of(self, label: int) -> str:
    """Returns the name of a class, or its number if the model has no names.

    Raises:
      UserError: the model has fewer names than classes.
    """
    if not self._names:
      return str(label)
    if label >= len(self._names):
      raise UserError(
        f"{self.source} has {len(self._names)} class names ({LABELS}), but the class {label}. "
        "Restore the names, or export the model again."
      )
    return self._names[label]

  def run(self, image: str) -> dict[str, np.ndarray]:
    """Returns the outputs for one image file, without the batch axis.

    Raises:
      UnreadableImageError: If the file does not exist or is not an image.
    """
    copies = self._batch or 1  # a fixed batch is filled with copies of the image
    encoded = read_file(image)
    try:
      outputs = self._run(tf.repeat([encoded], copies))
    except tf.errors.InvalidArgumentError as error:
      if size := _size(encoded):
        raise UnreadableImageError(
          f"{image} has {size[1]} x {size[0]} pixels, and the model's center crop leaves none of "
          f"them. Pass an image with at least {MIN_CLASSIFIED_SIDE} pixels per side."
        ) from error
      message = f"{image} cannot be decoded: expected a JPEG, PNG, GIF, BMP or WebP image."
      if "assertion failed" not in error.message:  # that of the model says the same
        message += f" TensorFlow: {_reason(error.message)}"
      raise UnreadableImageError(message) from error
    return {name: value[0].numpy() for name, value in outputs.items()}


def _load(saved_model: str) -> Any:
  """Returns the loaded object of a SavedModel. Raises `UserError` if it cannot be loaded."""
  if irregular := find_irregular(saved_model):
    raise UserError(f"{irregular} is a pipe or a device; expected a file. Copy the model again.")
  try:
    return tf.saved_model.load(glob_free_path(saved_model))
  except Exception as error:  # of any type, by the part that is missing or corrupt
    problem = str(getattr(error, "message", error)).strip() or type(error).__name__
    raise UserError(
      f"--saved_model={saved_model} is incomplete, corrupt or of another TensorFlow, and cannot be "
      f"loaded: {problem.splitlines()[0].rstrip('.')}. Copy it again, or export the model again."
    ) from error


def signature_name(signatures: Mapping[str, Any]) -> str:
  """Returns the name of the signature that takes encoded images, as this process can run it.

  Asking for the status loads this library's kernels. The copy in assets.extra is not loaded,
  because a client may not trust who exported the model.

  Args:
    signatures: of a SavedModel.
  """
  name = "image_bytes" if "image_bytes" in signatures else "serving_default"
  if name + STOCK_SUFFIX in signatures and "CPU" not in kernel_status().usable:
    name += STOCK_SUFFIX
  return name


def _size(encoded: bytes) -> tuple[int, int] | None:
  """Returns the (height, width) of an image with a side that is too small to crop, else None."""
  try:
    height, width, _ = tf.io.decode_image(encoded, expand_animations=False).shape
  except tf.errors.InvalidArgumentError:
    return None
  return (height, width) if min(height, width) < MIN_CLASSIFIED_SIDE else None


def _reason(message: str) -> str:
  """Returns the line of TensorFlow's message that is not about the graph."""
  about_graph = ("Graph execution error", "Detected at node", "<stack traces", "[[", "[Op:")
  lines = [line.strip() for line in message.splitlines()]
  reasons = [line for line in lines if line and not line.startswith(about_graph)]
  return reasons[0][:200] if reasons else message[:200]


def read_file(image: str) -> bytes:
  """Returns the content of an image file.

  Raises:
    UnreadableImageError: If the file cannot be read, or decodes to gigabytes.
  """
  try:
    encoded = read_bytes(image)
  except OSError as error:
    raise UnreadableImageError(
      f"{image}: {error.strerror}. Pass the path of an image file."
    ) from error
  if problem := bomb_problem(encoded):
    raise UnreadableImageError(f"{image} is {problem}. Pass a smaller image.")
  return encoded
