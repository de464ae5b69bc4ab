"""Rules of augmentation, classification and normalization."""

from __future__ import annotations

from official.vision.configs import common, image_classification

from sasa_tf.configs.image_classification import DataConfig, RandomErasing
from sasa_tf.training.config_validation.rules import (
  Rule,
  at_least,
  choice,
  decay,
  fraction,
  positive,
)

# Limits that only typing errors exceed.
MAX_SIDE = 65_500
MAX_CLASSES = 10_000_000

_RANDAUGMENT = (
  *("AutoContrast", "Equalize", "Invert", "Rotate", "Posterize", "Solarize", "Color", "Contrast"),
  *("Brightness", "Sharpness", "ShearX", "ShearY", "TranslateX", "TranslateY", "Cutout"),
  "SolarizeAdd",
)
_AUTOAUGMENT = (
  *("v0", "test", "simple", "reduced_cifar10", "svhn", "reduced_imagenet", "detection_v0"),
  *("panoptic_deeplab_policy", "vit", "deit3_three_augment"),
)
_RESIZE = (
  *("bilinear", "nearest", "bicubic", "area", "lanczos3", "lanczos5", "gaussian"),
  "mitchellcubic",
)
_ACTIVATIONS = (
  *("relu", "relu6", "swish", "gelu", "elu", "selu", "mish", "leaky_relu", "softplus"),
  *("softsign", "tanh", "sigmoid", "hard_sigmoid", "exponential", "linear"),
  *("hard_swish", "simple_swish", "identity"),
)
_INITIALIZERS = (
  *("random_uniform", "random_normal", "truncated_normal", "variance_scaling", "VarianceScaling"),
  *("glorot_uniform", "glorot_normal", "he_uniform", "he_normal", "lecun_uniform"),
  *("lecun_normal", "orthogonal", "zeros", "ones"),
)
INPUT_SIZE = Rule(
  minimum=1,
  maximum=MAX_SIDE,
  lengths=(0, 3),
  description=f"[height, width, 3], in pixels from 1 to {MAX_SIDE:,}",
)

RULES: dict[type, dict[str, Rule]] = {
  common.RandAugment: {
    "num_layers": at_least(0, 64),
    "magnitude": at_least(0, 100),
    "cutout_const": at_least(0, MAX_SIDE),
    "translate_const": at_least(0, MAX_SIDE),
    "magnitude_std": at_least(0),
    "prob_to_apply": fraction(),
    "exclude_ops": choice(*_RANDAUGMENT),
  },
  common.AutoAugment: {
    "augmentation_name": choice(*_AUTOAUGMENT),
    "cutout_const": at_least(0, MAX_SIDE),
    "translate_const": at_least(0, MAX_SIDE),
  },
  common.Augmentation: {"type": Rule(required=True)},
  common.RandomErasing: {
    "probability": fraction(),
    "min_area": Rule(above=0, maximum=1),
    "max_area": Rule(above=0, maximum=1),
    "min_aspect": positive(),
  },
  RandomErasing: {"trials": at_least(1, 100)},
  common.MixupAndCutmix: {
    "mixup_alpha": at_least(0),
    "cutmix_alpha": at_least(0),
    "prob": fraction(),
    "switch_prob": fraction(),
    "label_smoothing": decay(),
  },
  common.SSDRandomCropParam: {
    "min_object_covered": fraction(),
    "min_box_overlap": fraction(),
    "prob_to_apply": fraction(),
  },
  common.SSDRandomCrop: {
    "aspect_ratio_range": positive(),
    "area_range": Rule(above=0, maximum=1),
  },
  common.RandJpegQuality: {
    "min_quality": at_least(0, 100),
    "max_quality": at_least(0, 100),
    "prob_to_apply": fraction(),
  },
  common.NormActivation: {
    "activation": choice(*_ACTIVATIONS),
    "norm_momentum": fraction(),
    "norm_epsilon": positive(),
  },
  common.TfExampleDecoder: {"mask_binarize_threshold": fraction()},
  common.TfExampleDecoderLabelMap: {"mask_binarize_threshold": fraction()},
  common.TFLitePostProcessingConfig: {
    "max_detections": at_least(1, 100_000),
    "max_classes_per_detection": at_least(1, MAX_CLASSES),
    "nms_score_threshold": fraction(),
    "nms_iou_threshold": fraction(),
    "detections_per_class": at_least(1, 100_000),
    "y_scale": positive(),
    "x_scale": positive(),
    "w_scale": positive(),
    "h_scale": positive(),
  },
  DataConfig: {"pad_crop": at_least(0, MAX_SIDE, unit="pixels")},
  image_classification.DataConfig: {
    "crop_area_range": Rule(above=0, maximum=1),
    "color_jitter": at_least(0),
    "randaug_magnitude": at_least(0, 100),
    "center_crop_fraction": Rule(above=0, maximum=1),
    "tf_resize_method": choice(*_RESIZE),
    "repeated_augment": at_least(1, 64),
  },
  image_classification.ImageClassificationModel: {
    "num_classes": at_least(0, MAX_CLASSES),
    "input_size": INPUT_SIZE,
    "dropout_rate": decay(),
    "kernel_initializer": choice(*_INITIALIZERS),
  },
  image_classification.Losses: {
    "loss_weight": positive(),
    "label_smoothing": decay(),
    "l2_weight_decay": at_least(0),
  },
  image_classification.Evaluation: {
    "top_k": at_least(1, MAX_CLASSES),
    "precision_and_recall_thresholds": fraction(),
  },
  image_classification.ImageClassificationTask: {
    "init_checkpoint_modules": choice("all", "backbone"),
    "train_input_partition_dims": at_least(1),
    "eval_input_partition_dims": at_least(1),
  },
}
