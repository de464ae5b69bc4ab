"""Object detection: Model Garden's RetinaNet task with attention models and validated labels."""

from __future__ import annotations

from typing import Any

import tensorflow as tf
import tf_keras
from official.core import task_factory
from official.vision.configs.retinanet import DataConfig
from official.vision.tasks import retinanet

from sasa_tf.compat.model_garden import replaced_normalization, uncompressed_data_service
from sasa_tf.configs.retinanet import RetinaNetTask as Config
from sasa_tf.errors import UserError
from sasa_tf.modeling.builders import build_retinanet
from sasa_tf.modeling.builders.build_errors import model_errors
from sasa_tf.tasks import tfds_decoders
from sasa_tf.tasks.coco_categories import COCO_IDS
from sasa_tf.tasks.coco_evaluator import COCOEvaluator
from sasa_tf.tasks.init_checkpoint import restore_init_checkpoint
from sasa_tf.tasks.label_errors import LABEL_ERROR
from sasa_tf.tasks.normalization import normalize_image

tfds_decoders.register()

# Label of anchors without an object and of padded ground truth.
_IGNORED = -1
# Key of the labels: weight of the replica's losses in those of the global batch.
_LOSS_SHARE = "loss_share"


@task_factory.register_task_cls(Config)
class RetinaNetTask(retinanet.RetinaNetTask):
  """Model Garden's task, with these differences.

  * The model may have attention in the backbone, the pyramid and the head.
  * Class 0 is background. TFDS counts classes from 0, so that the stock task trains the first one,
    "person" of COCO, as background. Here labels of TFDS are converted to COCO's ids, or increased
    by one.
  * A label outside of the model's classes is an error. The stock task silently trains on nothing.
  * Losses are divided by the number of positive anchors of the global batch, not of each replica's
    part of it, so that training does not depend on the number of replicas.
  * An incompatible `init_checkpoint` is a `UserError`.
  """

  def build_model(self) -> tf_keras.Model:
    """Builds Model Garden's `RetinaNetModel` with our backbone, decoder and head.

    Raises:
      ConfigError: the configuration of the model is invalid. The message names its keys.
    """
    config = self.task_config
    # Halved as in Model Garden, whose weight decay is that of tf.nn.l2_loss.
    decay = config.losses.l2_weight_decay / 2
    with model_errors(config.model):
      model = build_retinanet(
        tf_keras.layers.InputSpec(shape=[None, *config.model.input_size]),
        config.model,
        tf_keras.regularizers.L2(decay) if decay else None,
      )
    if config.freeze_backbone:
      model.backbone.trainable = False
    return model

  def initialize(self, model: tf_keras.Model) -> None:
    """Restores `init_checkpoint` into the parts of `init_checkpoint_modules`.

    Raises:
      UserError: there is no such checkpoint, or it is of another model.
    """
    config = self.task_config
    if config.init_checkpoint:
      parts = {"backbone": model.backbone, "decoder": model.decoder}
      restore_init_checkpoint(
        config.init_checkpoint, config.init_checkpoint_modules, parts, model.checkpoint_items
      )

  def build_inputs(
    self, params: DataConfig, input_context: tf.distribute.InputContext | None = None
  ) -> tf.data.Dataset:
    """Builds the dataset of (images [B, H, W, 3], labels of all anchors)."""
    with uncompressed_data_service(), replaced_normalization(normalize_image):
      dataset = super().build_inputs(tfds_decoders.pass_through(params), input_context)
    classes = self.task_config.model.num_classes
    tfds_classes = _tfds_classes(params.tfds_name) if params.tfds_name else None

    def convert(labels):
      if tfds_classes is not None:
        ids = tf.gather(tf.constant(tfds_classes, labels.dtype), tf.maximum(labels, 0))
        labels = tf.where(labels == _IGNORED, labels, ids)
      message = f"{LABEL_ERROR}: expected 1 to {classes - 1}"
      objects = tf.boolean_mask(labels, labels != _IGNORED)
      with tf.control_dependencies(
        [
          tf.debugging.assert_positive(objects, message=message),
          tf.debugging.assert_less(objects, tf.cast(classes, objects.dtype), message=message),
        ]
      ):
        return tf.identity(labels)

    def convert_all(images, labels):
      labels = {**labels, "cls_targets": tf.nest.map_structure(convert, labels["cls_targets"])}
      if "groundtruths" in labels:
        truth = labels["groundtruths"]
        labels["groundtruths"] = {**truth, "classes": convert(truth["classes"])}
      return images, labels

    return dataset.map(convert_all, num_parallel_calls=tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)

  def prepare_replica_inputs(self, inputs: tuple[Any, dict[str, Any]]) -> tuple[Any, Any]:
    """Adds the weight of this replica's losses, which needs an all-reduce, to the labels.

    Args:
      inputs: (images [B, H, W, 3], labels) of this replica.
    """
    images, labels = inputs
    positives = tf.reduce_sum(labels["box_weights"]) + 1.0  # as in the stock losses
    context = tf.distribute.get_replica_context()
    replicas = context.num_replicas_in_sync
    global_positives = context.all_reduce(tf.distribute.ReduceOp.SUM, positives) - (replicas - 1.0)
    return images, {**labels, _LOSS_SHARE: replicas * positives / global_positives}

  def build_losses(
    self, outputs: dict[str, Any], labels: dict[str, Any], aux_losses: Any = None
  ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
    """Returns the losses: total, class, box, and the model loss without regularization."""
    total, *parts = super().build_losses(outputs, labels)
    share = labels.get(_LOSS_SHARE, 1.0)
    total, *parts = (loss * share for loss in (total, *parts))
    if aux_losses:
      total += self.task_config.losses.loss_weight * tf.reduce_sum(aux_losses)
    return total, *parts

  def build_metrics(self, training: bool = True) -> list[Any]:
    """Returns the means of the losses; for an evaluation, also creates the COCO metrics."""
    config = self.task_config
    if config.use_wod_metrics:
      raise UserError("task.use_wod_metrics must be False: sasa_tf supports COCO's metrics only.")
    if not training and config.use_coco_metrics:
      self.coco_metric = COCOEvaluator(
        annotation_file=config.annotation_file,
        include_mask=False,
        per_category_metrics=config.per_category_metrics,
        max_num_eval_detections=config.max_num_eval_detections,
      )
    return super().build_metrics(training=True)  # the losses, also for an evaluation


def _tfds_classes(name: str) -> tuple[int, ...] | range:
  """Returns the class of each label of a TFDS dataset."""
  # Besides COCO, Model Garden supports one TFDS dataset, with 365 classes.
  return COCO_IDS if name.partition("/")[0] == "coco" else range(1, 366)
