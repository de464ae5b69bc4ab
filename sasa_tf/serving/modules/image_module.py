"""Base of the export modules: signatures for each kind of input, which share one model step."""

from __future__ import annotations

import abc
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import tensorflow as tf
from official.vision.serving import export_base

from sasa_tf.layers import AttentionStemBase, LocalSelfAttention2DBase
from sasa_tf.ops.export_context import exports_stock_operations
from sasa_tf.serving.modules.encoded_images import map_encoded, parse_examples
from sasa_tf.serving.modules.image_loop import images_on_cpu, map_chunks

Outputs = Mapping[str, tf.Tensor]
Step = Callable[[tf.Tensor], Outputs]


class Signature(NamedTuple):
  """A signature with one input.

  Attributes:
    spec: of the input; its name is that of the argument.
    body: maps the input and the model step to outputs.
  """

  spec: tf.TensorSpec
  body: Callable[[tf.Tensor, Step], Outputs]

  def concrete(self, step: Step) -> tf.types.experimental.ConcreteFunction:
    """Returns the traced signature."""
    traced = tf.function(lambda inputs: self.body(inputs, step), autograph=False)
    return traced.get_concrete_function(self.spec)


class ImageModule(export_base.ExportModule, metaclass=abc.ABCMeta):
  """An image model with preprocessing and postprocessing.

  `get_inference_signatures` creates signatures by the kind of their input:

  * `image_tensor`: `images` uint8 [B, H, W, 3], RGB, any H and W.
  * `image_bytes`: `image_bytes` strings [B], encoded images of any size, see `decode_upright`.
  * `tf_example`: `example_bytes` strings [B], serialized `tf.train.Example`s of such images.
  * `prepared`: `images` float32 [B, *prepared_size, 3], RGB, 0 to 255, without preprocessing.

  REST servers decode base64 for inputs whose name ends in `_bytes`. With class names, there is one
  more kind, see the subclasses.
  """

  @property
  def batch_size(self) -> int | None:
    """The fixed batch size; None if it is dynamic."""
    return self._batch_size

  @property
  @abc.abstractmethod
  def prepared_size(self) -> list[int]:
    """(H, W) of the model's input."""

  @property
  @abc.abstractmethod
  def image_key(self) -> str:
    """Feature of the encoded image in `tf.train.Example`s."""

  @property
  @abc.abstractmethod
  def _prepared_spec(self) -> Any:
    """Tensor specs of what `prepare` returns for one image, without the batch axis."""

  @abc.abstractmethod
  def prepare(self, images: tf.Tensor) -> Any:
    """Preprocesses images of one size, uint8 [B, H, W, 3]; the first result is the step's input."""

  @abc.abstractmethod
  def _step(self, images: tf.Tensor) -> Outputs:
    """Returns the outputs for normalized images, float32 [B, *prepared_size, 3]."""

  @abc.abstractmethod
  def _infer(self, prepared: Any, step: Step) -> Outputs:
    """Returns the outputs of a signature for what `prepare` returned."""

  @abc.abstractmethod
  def _infer_prepared(self, images: tf.Tensor, step: Step) -> Outputs:
    """Returns the outputs of the signature `prepared`."""

  @abc.abstractmethod
  def serve_prepared(self, images: tf.Tensor) -> Outputs:
    """Returns the outputs for images without preprocessing, for all export formats.

    Args:
      images: float32 [B, *prepared_size, 3], RGB, 0 to 255.
    """

  def serve(self, images: tf.Tensor) -> Outputs:
    """Returns the outputs for decoded images, uint8 [B, H, W, 3]."""
    return self._from_tensor(images, self._step)

  def signature_kinds(self, class_names: Sequence[str] | None = None) -> tuple[str, ...]:
    """Returns the kinds of signatures that the module has.

    Args:
      class_names: in label order; None if unknown.
    """
    return tuple(self._signatures(class_names))

  def get_inference_signatures(
    self, function_keys: Mapping[str, str], class_names: Sequence[str] | None = None
  ) -> dict[str, tf.types.experimental.ConcreteFunction]:
    """Returns concrete functions by signature name.

    Args:
      function_keys: {kind of input: name of its signature}.
      class_names: in label order, for the kind that returns them.
    """
    # One function of the graph for all signatures. It belongs to this export, because a function
    # that was traced before could hold other implementations of the operations.
    step = tf.function(self._step_of_any_batch)
    known = self._signatures(class_names)
    return {name: known[kind].concrete(step) for kind, name in function_keys.items()}

  def _signatures(self, class_names: Sequence[str] | None) -> dict[str, Signature]:
    """Returns the signatures by kind."""
    batch, size = self._batch_size, self.prepared_size
    return {
      "image_tensor": Signature(
        tf.TensorSpec([batch, None, None, 3], tf.uint8, "images"), self._from_tensor
      ),
      "image_bytes": Signature(tf.TensorSpec([batch], tf.string, "image_bytes"), self._from_bytes),
      "tf_example": Signature(
        tf.TensorSpec([batch], tf.string, "example_bytes"), self._from_examples
      ),
      "prepared": Signature(
        tf.TensorSpec([batch, *size, 3], tf.float32, "images"), self._from_prepared
      ),
    }

  def _step_of_any_batch(self, images: tf.Tensor) -> Outputs:
    """Returns the outputs of a batch that may be empty.

    Models with attention run on a few images at a time, because of its memory.
    """
    with_kernels, batch = not exports_stock_operations(), self._batch_size
    at_once = self.images_at_once(with_kernels=with_kernels)
    if at_once is not None and (batch is None or batch > at_once):
      return map_chunks(self._step, images, with_kernels=with_kernels)
    if batch is not None:
      return self._step(images)
    # An empty batch is run with one image: optimized convolutions of TensorFlow need one.
    number = tf.shape(images)[0]
    padded = tf.pad(images, [[0, tf.maximum(1 - number, 0)], [0, 0], [0, 0], [0, 0]])
    outputs = self._step(tf.ensure_shape(padded, images.shape))
    return {name: values[:number] for name, values in outputs.items()}

  def images_at_once(self, *, with_kernels: bool) -> int | None:
    """Returns how many images of a batch a CPU processes together; None for all."""
    attention = (AttentionStemBase, LocalSelfAttention2DBase)
    if not any(isinstance(part, attention) for part in self.model.submodules):
      return None
    return images_on_cpu(*self.prepared_size, with_kernels=with_kernels)

  def _from_prepared(self, images: tf.Tensor, step: Step) -> Outputs:
    # TensorFlow does not compare the inputs of a loaded signature with its spec.
    return self._infer_prepared(
      tf.ensure_shape(images, [self._batch_size, *self.prepared_size, 3]), step
    )

  def _from_tensor(self, images: tf.Tensor, step: Step) -> Outputs:
    # Resizing has no GPU kernels for all methods, and needs the CPU's memory only.
    with tf.device("cpu:0"):
      prepared = self.prepare(tf.ensure_shape(images, [self._batch_size, None, None, 3]))
    return self._infer(self._with_batch_size(prepared), step)

  def _from_bytes(self, encoded: tf.Tensor, step: Step) -> Outputs:
    with tf.device("cpu:0"):
      prepared = map_encoded(self.prepare, encoded, self._prepared_spec)
    return self._infer(self._with_batch_size(prepared), step)

  def _from_examples(self, serialized: tf.Tensor, step: Step) -> Outputs:
    with tf.device("cpu:0"):
      encoded = parse_examples(serialized, self.image_key)
    return self._from_bytes(encoded, step)

  def _with_batch_size(self, prepared: Any) -> Any:
    """Gives tensors of one batch the same static shape, so that the step is traced once."""
    return tf.nest.map_structure(
      lambda tensor, spec: tf.ensure_shape(tensor, [self._batch_size, *spec.shape]),
      prepared,
      self._prepared_spec,
    )
