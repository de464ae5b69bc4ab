"""Export module of classifiers: images in, probabilities out, preprocessed as in the evaluation."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf
import tf_keras
from official.vision.modeling import factory
from official.vision.ops import preprocess_ops

from sasa_tf.serving.modules.image_module import ImageModule, Outputs, Signature, Step
from sasa_tf.serving.modules.normalization import normalize


class ClassificationModule(ImageModule):
  """A classifier with the preprocessing of the evaluation.

  Model Garden's module crops differently and rounds encoded images to integers after resizing, so
  its probabilities differ from those of the evaluation.

  The signatures return `logits` and `probs` float32 [B, classes]. With class names, the kind
  `classify` is TensorFlow Serving's classify method: `inputs` strings [B], serialized
  `tf.train.Example`s, to `classes` strings and `scores` float32 [B, classes], the best first.
  """

  def _build_model(self) -> tf_keras.Model:
    return factory.build_classification_model(
      input_specs=tf_keras.layers.InputSpec(shape=[self._batch_size, *self._input_image_size, 3]),
      model_config=self.params.task.model,
      l2_regularizer=None,
    )

  @property
  def prepared_size(self) -> list[int]:
    """(H, W) of the model's input."""
    return list(self._input_image_size)

  @property
  def image_key(self) -> str:
    """Feature of the encoded image in `tf.train.Example`s."""
    return self.params.task.train_data.image_field_key

  @property
  def _prepared_spec(self) -> tf.TensorSpec:
    return tf.TensorSpec([*self.prepared_size, 3], tf.float32)

  def prepare(self, images: tf.Tensor) -> tf.Tensor:
    """Maps images uint8 [B, H, W, 3] of any size to the model's input, normalized."""
    data = self.params.task.validation_data
    if data.aug_crop:
      images = _center_crop(images, data.center_crop_fraction)
    images = tf.image.resize(images, self.prepared_size, method=data.tf_resize_method)
    # Not `normalize`: this also does what the evaluation does with integers ("nearest").
    return preprocess_ops.normalize_image(
      images, offset=preprocess_ops.MEAN_RGB, scale=preprocess_ops.STDDEV_RGB
    )

  def _signatures(self, class_names: Sequence[str] | None) -> dict[str, Signature]:
    signatures = super()._signatures(class_names)
    if class_names is None:
      return signatures

    def classify(serialized: tf.Tensor, step: Step) -> Outputs:
      best = tf.math.top_k(self._from_examples(serialized, step)["probs"], len(class_names))
      names = tf.gather(tf.constant(list(class_names)), best.indices)
      return {
        tf.saved_model.CLASSIFY_OUTPUT_CLASSES: names,
        tf.saved_model.CLASSIFY_OUTPUT_SCORES: best.values,
      }

    spec = tf.TensorSpec([self._batch_size], tf.string, tf.saved_model.CLASSIFY_INPUTS)
    return {**signatures, "classify": Signature(spec, classify)}

  def _step(self, images: tf.Tensor) -> Outputs:
    logits = self.inference_step(images)
    multilabel = self.params.task.train_data.is_multilabel
    probs = tf.math.sigmoid(logits) if multilabel else tf.nn.softmax(logits)
    return {"logits": logits, "probs": probs}

  def _infer(self, prepared: tf.Tensor, step: Step) -> Outputs:
    return step(prepared)

  def _infer_prepared(self, images: tf.Tensor, step: Step) -> Outputs:
    return step(normalize(images))

  def serve_prepared(self, images: tf.Tensor) -> Outputs:
    """Classifies images of the model's input size, float32 [B, H, W, 3], values from 0 to 255."""
    return self._infer_prepared(images, self._step)


def _center_crop(images: tf.Tensor, fraction: float) -> tf.Tensor:
  """Crops squares as the evaluation's `preprocess_ops.center_crop_image`, from [B, H, W, 3]."""
  size = tf.cast(tf.shape(images)[1:3], tf.float32)
  side = fraction * tf.minimum(size[0], size[1])
  top, left = tf.unstack(tf.cast((size - side) / 2.0, tf.int32))
  side = tf.cast(side, tf.int32)
  return images[:, top : top + side, left : left + side]
