"""Detection experiments: RetinaNet with attention in backbone, pyramid and heads."""

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
# COCO numbers its 80 categories from 1 to 90; Model Garden adds background as class 0.
COCO_CLASSES = 91
_RESTRICTIONS = [
  "task.train_data.is_training != None",
  "task.validation_data.is_training != None",
]


@dataclasses.dataclass
class RetinaNetHead(retinanet.RetinaNetHead):
  """Model Garden's fields, and those of `sasa_tf.tf_keras.RetinaNetHead`; see there.

  `num_convs` is the number of spatial operations of a tower, whichever they are.
  """

  spatial: str = "attention"
  kernel_size: int = 7
  num_heads: int = 8
  positions: str = "relative"
  border: str = "zero"
  implementation: str = "auto"
  use_batch_norm: bool = True


@dataclasses.dataclass
class RetinaNet(retinanet.RetinaNet):
  """Model Garden's detector with our backbone and decoder among the choices, and our head."""

  backbone: Backbone = dataclasses.field(default_factory=Backbone)
  decoder: Decoder = dataclasses.field(default_factory=Decoder)
  head: RetinaNetHead = dataclasses.field(default_factory=RetinaNetHead)


@dataclasses.dataclass
class RetinaNetTask(retinanet.RetinaNetTask):
  """Model Garden's task; a class of its own, as the registry looks tasks up by exact class."""

  model: RetinaNet = dataclasses.field(default_factory=RetinaNet)


def _trainer(
  *,
  steps_per_epoch: int,
  epochs: int,
  warmup_steps: int,
  epochs_per_evaluation: int,
  optimizer: dict[str, Any],
  learning_rate: float,
) -> config_definitions.TrainerConfig:
  """Linear warm-up and cosine decay to zero; the checkpoint of the best AP is kept.

  Args:
    steps_per_epoch: which counts everything else in steps.
    epochs: of training, warm-up included.
    warmup_steps: in which the learning rate rises from zero.
    epochs_per_evaluation: between two evaluations, and two checkpoints.
    optimizer: Model Garden's `optimizer` field.
    learning_rate: peak, after the warm-up.
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
  """The paper's recipe (App. A.3); COCO 2017 through TFDS, all of attention, from scratch.

  The paper fixes: 150 epochs, batch 64, learning rate from 0 to 0.12 over the first epoch and
  cosine decay, multiscale jitter, 640 pixel crops, flips half of the time. Its FLOPs need 6 anchors
  at each place. It leaves open, and we set as was usual: momentum 0.9, weight decay 1e-4, jitter
  from 0.8 to 1.2, focal loss with gamma 1.5, batch norm over all replicas.
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
        # Of whole images, some of which take a megabyte.
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
  """Scenes of handwritten digits at 128 pixels: minutes on two processor cores.

  Attention in the whole body; pyramid and heads are of convolutions, as attention there needs more
  steps than minutes have. Reads what `python -m sasa_tf.bin.make_tfrecords scenes --output
  data/scenes` writes.
  """
  batch_size, epochs = 16, 6
  data = {"global_batch_size": batch_size, "dtype": "float32"}
  body = SASAResNet(model_id=26, width_multiplier=0.25, kernel_size=5, num_heads=4)
  return config_definitions.ExperimentConfig(
    task=RetinaNetTask(
      model=RetinaNet(
        num_classes=11,
        input_size=[128, 128, 3],
        max_level=5,
        # Digits are 18 to 54 pixels high; the smallest anchors 16.
        anchor=retinanet.Anchor(anchor_size=2.0),
        backbone=Backbone(sasa_resnet=body),
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
