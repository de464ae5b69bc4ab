"""The trained model in this process: what it is asked, and what it answers."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import tensorflow as tf

from sasa_tf.data.images.orientation import decode_upright
from sasa_tf.errors import UserError
from sasa_tf.serving.modules.normalization import denormalize

# What a signature of an exported model takes: the four kinds of SavedModels, and the images of
# Keras models.
Kind = Literal["image_tensor", "image_bytes", "tf_example", "prepared", "normalized"]

Outputs = dict[str, np.ndarray]


class TrainedModel:
  """An export module and some images.

  Functions that were traced for the export are traced again, so the outputs are those of the
  implementation that trains, such as compiled kernels, and not those of the exported graph.

  Attributes:
    images: decoded images, uint8 [H, W, 3] each.
    prepared_size: (H, W) of prepared images.
  """

  def __init__(self, module: Any, images: Sequence[bytes | np.ndarray], batch_size: int | None):
    """Decodes the images.

    Args:
      module: export module with restored weights.
      images: encoded images, or uint8 [H, W, 3].
      batch_size: fixed batch size of the module; None if it is dynamic.

    Raises:
      UserError: there are no images.
    """
    if not len(images):
      raise UserError(
        "the exported model cannot be verified without images. Pass some images of the data."
      )
    self._module, self._batch_size = module, batch_size or 1
    self._encoded = [
      image if isinstance(image, bytes) else tf.io.encode_png(image).numpy() for image in images
    ]
    self.images = [decode_upright(each).numpy() for each in self._encoded]
    self.prepared_size = tuple(map(int, module.prepared_size))

  @functools.cached_property
  def _normalized(self) -> np.ndarray:
    """The model's inputs float32 [B, H, W, 3]."""
    prepared = [tf.nest.flatten(self._module.prepare(i[None]))[0] for i in self.images]
    return tf.concat(prepared, axis=0).numpy()

  @functools.cached_property
  def _prepared(self) -> np.ndarray:
    """The same before the normalization, values from 0 to 255."""
    return denormalize(tf.constant(self._normalized)).numpy()

  def inputs(self, kind: Kind) -> list[tuple[list[int], np.ndarray]]:
    """Returns the batches of a signature, each with the indices of its images.

    Args:
      kind: of the signature. For "image_tensor", a batch holds the images of one size.
    """
    every = list(range(len(self.images)))
    if kind == "normalized":
      return [(every, self._normalized)]
    if kind == "prepared":
      return [(every, self._prepared)]
    if kind == "image_bytes":
      return [(every, np.array(self._encoded, dtype=object))]
    if kind == "tf_example":
      return [(every, np.array([self._example(each) for each in self._encoded], dtype=object))]
    sizes: dict[tuple[int, ...], list[int]] = {}
    for i, image in enumerate(self.images):
      sizes.setdefault(image.shape, []).append(i)
    return [(rows, np.stack([self.images[i] for i in rows])) for rows in sizes.values()]

  def _example(self, encoded: bytes) -> bytes:
    key = self._module.image_key
    feature = tf.train.Feature(bytes_list=tf.train.BytesList(value=[encoded]))
    return tf.train.Example(features=tf.train.Features(feature={key: feature})).SerializeToString()

  def outputs(self, kind: Kind) -> Outputs:
    """Returns the outputs [B, ...] of all images by name.

    Encoded images have the same outputs as decoded ones, so these are computed once.

    Args:
      kind: of the signature.
    """
    if kind == "normalized":
      return self._of_normalized
    return self._of_prepared if kind == "prepared" else self._of_decoded

  @functools.cached_property
  def _of_normalized(self) -> Outputs:
    from sasa_tf.serving.keras_model import raw_outputs

    def run(images: tf.Tensor) -> dict[str, tf.Tensor]:
      found = tf.nest.flatten(raw_outputs(self._module.model, images))
      return {f"output_{i}": output for i, output in enumerate(found)}

    return self._run(run, self._normalized)

  @functools.cached_property
  def _of_prepared(self) -> Outputs:
    return self._run(self._module.serve_prepared, self._prepared)

  @functools.cached_property
  def _of_decoded(self) -> Outputs:
    return self._run(self._module.serve, self.images)

  def _run(self, function: Any, images: Sequence[np.ndarray]) -> Outputs:
    size = images[0].shape[:2] if len({image.shape for image in images}) == 1 else (None, None)
    spec = tf.TensorSpec([self._batch_size, *size, 3], images[0].dtype)
    with _without_cached_traces():
      traced = tf.compat.v1.wrap_function(function, [spec])
    # One by one: bounds the memory, and finds errors of the exported model that depend on the
    # batch. A fixed batch holds copies.
    found: list[Mapping[str, tf.Tensor]] = [
      traced(tf.repeat(image[None], self._batch_size, axis=0)) for image in images
    ]
    return {name: np.stack([each[name][0].numpy() for each in found]) for name in found[0]}


@contextlib.contextmanager
def _without_cached_traces() -> Iterator[None]:
  """Runs the Python code of functions below `tf.function`, whose traces may be for the export."""
  before = tf.config.functions_run_eagerly()
  tf.config.run_functions_eagerly(True)
  try:
    yield
  finally:
    tf.config.run_functions_eagerly(before)
