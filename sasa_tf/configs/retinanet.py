"""Detection experiments: RetinaNet with attention in the backbone, pyramid and heads."""

from __future__ import annotations

import dataclasses
from typing import Any

from official.core import config_definitions, exp_factory
from official.modeling import optimization
from official.vision.configs import common, retinanet

from sasa_tf.configs.backbones import Backbone, SASAResNet
from sasa_tf.configs.decoders import SASAFPN, Decoder

COCO_TRAIN_EXAMPLES = 118_287
SCENES_TRAIN_EXAMPLES = 2_000
# The 80 categories of COCO have ids from 1 to 90; Model Garden adds background as class 0.
COCO_CLASSES = 91
_RESTRICTIONS = [
  "task.train_data.is_training != None",
  "task.validation_data.is_training != None",
]


@dataclasses.dataclass
class RetinaNetHead(retinanet.RetinaNetHead):
  """Model Garden's fields and arguments of `sasa_tf.tf_keras.RetinaNetHead`, which documents them.

  `num_convs` is the number of spatial operations of a tower, also if they are attention.
  """

  spatial: str = "attention"
  kernel_size: int | list[int] = 7
  num_heads: int = 8
  positions: str = "relative"
  border: str = "zero"
  implementation: str = "auto"
  shortcut: bool = False
  locality_strength: float = 0.0
  value_stddev: float | None = 0.01
  use_batch_norm: bool = True


@dataclasses.dataclass
class RetinaNet(retinanet.RetinaNet):
  """Model Garden's RetinaNet with `sasa_resnet`, `sasa_fpn` and sasa_tf's head."""

  backbone: Backbone = dataclasses.field(default_factory=Backbone)
  decoder: Decoder = dataclasses.field(default_factory=Decoder)
  head: RetinaNetHead = dataclasses.field(default_factory=RetinaNetHead)


@dataclasses.dataclass
class ExportConfig(retinanet.ExportConfig):
  """Model Garden's fields, and the suppression of exported models.

  Attributes:
    batched_nms: whether exported models replace `detection_generator.nms_version` v1 and v2 by one
      operation with the same results, which takes less than half of the time on a CPU.
  """

  batched_nms: bool = True


@dataclasses.dataclass
class RetinaNetTask(retinanet.RetinaNetTask):
  """Model Garden's task config, subclassed because tasks are registered by exact class."""

  model: RetinaNet = dataclasses.field(default_factory=RetinaNet)
  export_config: ExportConfig = dataclasses.field(default_factory=ExportConfig)


def _trainer(
  *,
  steps_per_epoch: int,
  epochs: int,
  warmup_steps: int,
  epochs_per_evaluation: int,
  optimizer: dict[str, Any],
  learning_rate: float,
) -> config_definitions.TrainerConfig:
  """Returns a trainer with linear warm-up and cosine decay that saves the checkpoint of best AP.

  Args:
    steps_per_epoch: used to convert epochs to steps.
    epochs: training epochs, including warm-up.
    warmup_steps: steps of warm-up, in which the learning rate rises from zero.
    epochs_per_evaluation: epochs between evaluations and between checkpoints.
    optimizer: Model Garden's `optimizer` field.
    learning_rate: peak learning rate, after the warm-up.
  """
  interval = epochs_per_evaluation * steps_per_epoch
  return config_definitions.TrainerConfig(
    train_steps=epochs * steps_per_epoch,
    steps_per_loop=steps_per_epoch,
    summary_interval=steps_per_epoch,
    checkpoint_interval=interval,
    validation_interval=interval,
    validation_steps=-1,
    best_checkpoint_export_subdir="best_ckpt",
    best_checkpoint_eval_metric="AP",
    best_checkpoint_metric_comp="higher",
    optimizer_config=optimization.OptimizationConfig(
      {
        "optimizer": optimizer,
        "learning_rate": {
          "type": "cosine",
          "cosine": {
            "initial_learning_rate": learning_rate,
            "decay_steps": epochs * steps_per_epoch,
          },
        },
        "warmup": {
          "type": "linear",
          "linear": {"warmup_steps": warmup_steps, "warmup_learning_rate": 0},
        },
      }
    ),
  )


@exp_factory.register_config_factory("retinanet_sasa_coco")
def retinanet_sasa_coco() -> config_definitions.ExperimentConfig:
  """The paper's COCO recipe (App. A.3): attention everywhere, from scratch, COCO 2017 from TFDS.

  From the paper: 150 epochs, batch size 64, learning rate from 0 to 0.12 over the first epoch and
  cosine decay, multiscale jitter, crops of 640 pixels, flips with probability 0.5. Its FLOPs imply
  6 anchors per pixel. Not given in the paper, set to common values: momentum 0.9, weight decay
  1e-4, jitter from 0.8 to 1.2, focal loss with gamma 1.5, batch norm over all replicas.
  """
  batch_size, epochs = 64, 150
  steps_per_epoch = COCO_TRAIN_EXAMPLES // batch_size
  return config_definitions.ExperimentConfig(
    task=RetinaNetTask(
      model=RetinaNet(
        num_classes=COCO_CLASSES,
        input_size=[640, 640, 3],
        anchor=retinanet.Anchor(num_scales=2),
        norm_activation=common.NormActivation(use_sync_bn=True),
      ),
      losses=retinanet.Losses(l2_weight_decay=1e-4),
      train_data=retinanet.DataConfig(
        tfds_name="coco/2017",
        tfds_split="train",
        is_training=True,
        global_batch_size=batch_size,
        dtype="float32",
        # Complete images, some of which take a megabyte.
        shuffle_buffer_size=1000,
        parser=retinanet.Parser(aug_rand_hflip=True, aug_scale_min=0.8, aug_scale_max=1.2),
      ),
      validation_data=retinanet.DataConfig(
        tfds_name="coco/2017",
        tfds_split="validation",
        is_training=False,
        global_batch_size=8,
        dtype="float32",
        drop_remainder=False,
      ),
    ),
    trainer=_trainer(
      steps_per_epoch=steps_per_epoch,
      epochs=epochs,
      warmup_steps=steps_per_epoch,
      epochs_per_evaluation=1,
      optimizer={"type": "sgd", "sgd": {"momentum": 0.9}},
      learning_rate=0.12,
    ),
    restrictions=_RESTRICTIONS,
  )


@exp_factory.register_config_factory("retinanet_sasa_scenes")
def retinanet_sasa_scenes() -> config_definitions.ExperimentConfig:
  """Scenes of handwritten digits at 128 pixels; trains in minutes on two CPU cores.

  The backbone uses attention. The pyramid and the heads use convolutions, because attention there
  needs more training steps. Reads the files that `python -m sasa_tf.bin.make_tfrecords scenes
  --output data/scenes` writes.
  """
  batch_size, epochs = 16, 6
  data = {"global_batch_size": batch_size, "dtype": "float32"}
  backbone = SASAResNet(model_id=26, width_multiplier=0.25, kernel_size=5, num_heads=4)
  return config_definitions.ExperimentConfig(
    task=RetinaNetTask(
      model=RetinaNet(
        num_classes=11,
        input_size=[128, 128, 3],
        max_level=5,
        # Digits are 18 to 54 pixels high; the smallest anchors 16.
        anchor=retinanet.Anchor(anchor_size=2.0),
        backbone=Backbone(sasa_resnet=backbone),
        decoder=Decoder(sasa_fpn=SASAFPN(num_filters=64, spatial="conv")),
        head=RetinaNetHead(num_convs=2, num_filters=64, spatial="conv"),
        detection_generator=retinanet.DetectionGenerator(pre_nms_top_k=500),
        norm_activation=common.NormActivation(use_sync_bn=False),
      ),
      train_data=retinanet.DataConfig(
        input_path="data/scenes/train-*", is_training=True, shuffle_buffer_size=2000, **data
      ),
      validation_data=retinanet.DataConfig(
        input_path="data/scenes/validation-*", is_training=False, drop_remainder=False, **data
      ),
    ),
    trainer=_trainer(
      steps_per_epoch=SCENES_TRAIN_EXAMPLES // batch_size,
      epochs=epochs,
      warmup_steps=50,
      epochs_per_evaluation=epochs,
      optimizer={"type": "adam", "adam": {}},
      learning_rate=3e-3,
    ),
    restrictions=_RESTRICTIONS,
  )
