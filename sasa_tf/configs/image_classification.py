"""Classification experiments, which override Model Garden's `resnet_imagenet`."""

from __future__ import annotations

import dataclasses
from typing import Any

from official.core import config_definitions, exp_factory
from official.modeling import optimization
from official.vision.configs import common, image_classification

from sasa_tf.configs.backbones import Backbone

IMAGENET_TRAIN_EXAMPLES = 1_281_167
CIFAR10_TRAIN_EXAMPLES = 50_000
DIGITS_TRAIN_EXAMPLES = 1_437


@dataclasses.dataclass
class ImageClassificationModel(image_classification.ImageClassificationModel):
  """Model Garden's classification model with `sasa_resnet` as a backbone."""

  backbone: Backbone = dataclasses.field(default_factory=Backbone)


@dataclasses.dataclass
class RandomErasing(common.RandomErasing):
  """Model Garden's random erasing, with a number of trials that can be set.

  Attributes:
    trials: largest number of rectangles that are drawn until one fits into the image. Model Garden
      unrolls them, so a small number is faster where most rectangles fit.
  """

  trials: int = 10


@dataclasses.dataclass
class DataConfig(image_classification.DataConfig):
  """Model Garden's data config with a crop for small images.

  Attributes:
    random_erasing: rectangles of training images that are erased; None for none.
    pad_crop: pixels of reflected border that are added to each side of a training image before it
      is cropped at random to its size; 0 for no crop. Model Garden's `aug_crop` enlarges a random
      part of the image instead.
    batch_augmentation: whether whole batches of training images are augmented instead of one image
      after the other, with the same distribution, which is much faster for small images. All images
      must have the size of the model's input. `cache` then caches the decoded images, before their
      augmentation.
  """

  random_erasing: RandomErasing | None = None
  pad_crop: int = 0
  batch_augmentation: bool = False


@dataclasses.dataclass
class ImageClassificationTask(image_classification.ImageClassificationTask):
  """Model Garden's task config, subclassed because tasks are registered by exact class."""

  model: ImageClassificationModel = dataclasses.field(default_factory=ImageClassificationModel)
  train_data: DataConfig = dataclasses.field(default_factory=lambda: DataConfig(is_training=True))
  validation_data: DataConfig = dataclasses.field(
    default_factory=lambda: DataConfig(is_training=False)
  )


def _experiment(
  *,
  train_examples: int,
  batch_size: int,
  epochs: int,
  warmup_epochs: int,
  optimizer: dict[str, Any],
  learning_rate: float,
  ema_decay: float | None = None,
  overrides: dict[str, Any],
) -> config_definitions.ExperimentConfig:
  """Returns `resnet_imagenet` with sasa_tf's task, linear warm-up and cosine decay to zero.

  Args:
    train_examples: number of training examples, used to convert epochs to steps.
    batch_size: global batch size.
    epochs: training epochs, including warm-up.
    warmup_epochs: epochs of warm-up, in which the learning rate rises from zero.
    optimizer: Model Garden's `optimizer` field.
    learning_rate: peak learning rate, after the warm-up.
    ema_decay: decay of the moving average of the weights, or None for no average.
    overrides: all other overrides, as in a YAML file.
  """
  parent = exp_factory.get_exp_config("resnet_imagenet")
  steps_per_epoch = train_examples // batch_size
  schedule = {
    "optimizer": optimizer,
    "learning_rate": {
      "type": "cosine",
      "cosine": {"initial_learning_rate": learning_rate, "decay_steps": epochs * steps_per_epoch},
    },
    "warmup": {
      "type": "linear",
      "linear": {"warmup_steps": warmup_epochs * steps_per_epoch, "warmup_learning_rate": 0},
    },
  }
  if ema_decay is not None:
    schedule["ema"] = {"average_decay": ema_decay, "trainable_weights_only": False}
  parent.trainer.override(
    {
      "train_steps": epochs * steps_per_epoch,
      "steps_per_loop": steps_per_epoch,
      "summary_interval": steps_per_epoch,
      "checkpoint_interval": steps_per_epoch,
      "validation_interval": steps_per_epoch,
      "validation_steps": -1,
      "best_checkpoint_export_subdir": "best_ckpt",
      "best_checkpoint_eval_metric": "accuracy",
      "best_checkpoint_metric_comp": "higher",
    }
  )
  config = config_definitions.ExperimentConfig(
    runtime=parent.runtime,
    task=ImageClassificationTask(
      model=ImageClassificationModel(norm_activation=parent.task.model.norm_activation),
      losses=parent.task.losses,
      train_data=DataConfig(is_training=True, global_batch_size=batch_size),
      validation_data=DataConfig(
        is_training=False, global_batch_size=batch_size, drop_remainder=False
      ),
    ),
    trainer=parent.trainer.replace(optimizer_config=optimization.OptimizationConfig(schedule)),
    restrictions=[
      "task.train_data.is_training != None",
      "task.validation_data.is_training != None",
    ],
  )
  config.override(overrides)
  return config


@exp_factory.register_config_factory("sasa_resnet_imagenet")
def sasa_resnet_imagenet() -> config_definitions.ExperimentConfig:
  """The paper's ImageNet recipe (App. A.2) with the 1,000 classes of TFDS' `imagenet2012`.

  From the paper: 130 epochs, Nesterov momentum, learning rate 1.6 at batch size 4096 with 10 epochs
  of linear warm-up and cosine decay, batch norm decay 0.9999, moving average of the weights 0.9999.
  Not given in the paper, set to common values: momentum 0.9, weight decay 1e-4, random crop and
  flip.
  """
  return _experiment(
    train_examples=IMAGENET_TRAIN_EXAMPLES,
    batch_size=4096,
    epochs=130,
    warmup_epochs=10,
    optimizer={"type": "sgd", "sgd": {"momentum": 0.9, "nesterov": True}},
    learning_rate=1.6,
    ema_decay=0.9999,
    overrides={
      "task": {
        "model": {
          "num_classes": 1000,
          "input_size": [224, 224, 3],
          "norm_activation": {"norm_momentum": 0.9999},
        },
        "train_data": {"tfds_name": "imagenet2012", "tfds_split": "train"},
        "validation_data": {"tfds_name": "imagenet2012", "tfds_split": "validation"},
      },
    },
  )


@exp_factory.register_config_factory("sasa_resnet_cifar10")
def sasa_resnet_cifar10() -> config_definitions.ExperimentConfig:
  """CIFAR-10 from TFDS at 32 pixels, with half the width and a batch size for one device."""
  data = {"tfds_name": "cifar10", "aug_crop": False, "decode_jpeg_only": False}
  return _experiment(
    train_examples=CIFAR10_TRAIN_EXAMPLES,
    batch_size=128,
    epochs=100,
    warmup_epochs=5,
    optimizer={"type": "sgd", "sgd": {"momentum": 0.9, "nesterov": True}},
    learning_rate=0.1,
    overrides={
      "runtime": {"enable_xla": False},
      "task": {
        "model": {
          "num_classes": 10,
          "input_size": [32, 32, 3],
          "backbone": {
            "sasa_resnet": {"model_id": 26, "stem": "conv_small", "width_multiplier": 0.5}
          },
        },
        "losses": {"l2_weight_decay": 5e-4},
        "train_data": {**data, "tfds_split": "train"},
        "validation_data": {**data, "tfds_split": "test"},
      },
    },
  )


@exp_factory.register_config_factory("sasa_resnet_digits")
def sasa_resnet_digits() -> config_definitions.ExperimentConfig:
  """scikit-learn's handwritten digits of 8x8 pixels; trains in minutes on two CPU cores.

  Reads the files that `python -m sasa_tf.bin.make_tfrecords digits --output data/digits` writes.
  """
  data = {"aug_crop": False, "aug_rand_hflip": False, "decode_jpeg_only": False}
  return _experiment(
    train_examples=DIGITS_TRAIN_EXAMPLES,
    batch_size=32,
    epochs=20,
    warmup_epochs=1,
    optimizer={"type": "adam", "adam": {}},
    learning_rate=3e-3,
    overrides={
      "runtime": {"enable_xla": False},
      "task": {
        "model": {
          "num_classes": 10,
          "input_size": [8, 8, 3],
          "backbone": {
            "sasa_resnet": {
              "model_id": 26,
              "stem": "conv_small",
              "width_multiplier": 0.25,
              "kernel_size": 3,
              "border": "mask",
              "group_strides": [1, 1, 2, 1],
            }
          },
        },
        "evaluation": {"top_k": 3},
        "train_data": {**data, "input_path": "data/digits/train-*", "shuffle_buffer_size": 2000},
        "validation_data": {**data, "input_path": "data/digits/validation-*"},
      },
    },
  )
