"""Rules of backbones, decoders and detectors."""

from __future__ import annotations

from typing import get_args

from official.vision.configs import backbones, decoders, retinanet, semantic_segmentation

from sasa_tf.configs.backbones import Backbone, SASAResNet
from sasa_tf.configs.decoders import SASAFPN, Decoder
from sasa_tf.configs.retinanet import RetinaNetHead, RetinaNetTask
from sasa_tf.layers.types import Border, ImplementationName, Positions, StemVariant
from sasa_tf.modeling.baselines import BASELINES
from sasa_tf.modeling.blocks import STEMS
from sasa_tf.modeling.pyramid import SPATIAL
from sasa_tf.modeling.resnet import BLOCKS
from sasa_tf.training.config_validation.image_rules import INPUT_SIZE, MAX_CLASSES, MAX_SIDE
from sasa_tf.training.config_validation.rules import (
  Rule,
  at_least,
  choice,
  decay,
  fraction,
  positive,
)

_MAX_WIDTH = 65_536
_LEVEL = at_least(0, 12)
_WIDTH = at_least(1, _MAX_WIDTH, unit="channels")
_STEM = choice("v0", "v1")
_ATTENTION = {
  # Larger windows than this have more weights than the rest of the model.
  "kernel_size": at_least(
    1,
    255,
    odd=True,
    lengths=(2,),
    description="an odd integer from 1 to 255 (pixels), or a list of two: rows and columns",
  ),
  "num_heads": at_least(1, 1024),
  "positions": choice(*get_args(Positions)),
  "border": choice(*get_args(Border)),
  "implementation": choice(*get_args(ImplementationName)),
  "locality_strength": at_least(0),
}
_DEPTH = {"stochastic_depth_drop_rate": decay()}

_BACKBONES: dict[type, dict[str, Rule]] = {
  Backbone: {"type": Rule(required=True)},
  SASAResNet: {
    **_ATTENTION,
    "model_id": choice(*BLOCKS),
    "stem": choice(*STEMS),
    "attention_groups": choice(1, 2, 3, 4, unique=True),
    "width_multiplier": positive(64),
    "stem_variant": choice(*get_args(StemVariant)),
    "stem_num_heads": at_least(1, 1024),
    "stem_num_mixtures": at_least(1, 1024),
    "baseline": choice(*BASELINES),
    "group_strides": choice(1, 2, lengths=(4,)),
  },
  backbones.ResNet: {
    "model_id": choice(10, 18, 26, 34, 50, 101, 152, 200, 270, 350, 420),
    "depth_multiplier": positive(64),
    "stem_type": _STEM,
    "se_ratio": fraction(),
    **_DEPTH,
  },
  backbones.DilatedResNet: {
    "model_id": choice(50, 101, 152, 200),
    "output_stride": choice(8, 16, 32),
    "multigrid": at_least(1, 64, lengths=(3,)),
    "stem_type": choice("v0", "v1", "v2"),
    "last_stage_repeats": at_least(1, 64),
    "se_ratio": fraction(),
    **_DEPTH,
  },
  backbones.RevNet: {"model_id": choice(38, 56, 104)},
  backbones.EfficientNet: {
    "model_id": choice(*(f"b{i}" for i in range(8))),
    "se_ratio": fraction(),
    **_DEPTH,
  },
  backbones.SpineNet: {
    "model_id": choice("49S", "49", "96", "143", "143L", "190"),
    "min_level": _LEVEL,
    "max_level": _LEVEL,
    **_DEPTH,
  },
  backbones.SpineNetMobile: {
    "model_id": choice("49XS", "49S", "49"),
    "se_ratio": fraction(),
    "expand_ratio": at_least(1, 64),
    "min_level": _LEVEL,
    "max_level": _LEVEL,
    **_DEPTH,
  },
  backbones.MobileNet: {
    "filter_size_scale": positive(64),
    "output_stride": at_least(1, 64),
    **_DEPTH,
  },
  backbones.MobileDet: {
    "model_id": choice("MobileDetCPU", "MobileDetDSP", "MobileDetEdgeTPU", "MobileDetGPU"),
    "filter_size_scale": positive(64),
  },
  backbones.VisionTransformer: {
    "pooler": choice("token", "gap", "none"),
    "representation_size": at_least(0, _MAX_WIDTH),
    "hidden_size": _WIDTH,
    "patch_size": at_least(1, 1024, unit="pixels"),
    "init_stochastic_depth_rate": decay(),
    "pos_embed_shape": at_least(1, 4096),
    "layer_scale_init_value": at_least(0),
  },
  backbones.Transformer: {
    "mlp_dim": _WIDTH,
    "num_heads": at_least(1, 1024),
    "num_layers": at_least(1, 1024),
    "attention_dropout_rate": decay(),
    "dropout_rate": decay(),
  },
}

_DECODERS: dict[type, dict[str, Rule]] = {
  # ASPP has a single output level, so RetinaNet has no use for it.
  Decoder: {"type": choice("sasa_fpn", "fpn", "nasfpn", "identity", required=True)},
  SASAFPN: {**_ATTENTION, "num_filters": _WIDTH, "spatial": choice(*SPATIAL)},
  decoders.FPN: {"num_filters": _WIDTH, "fusion_type": choice("sum", "concat")},
  decoders.NASFPN: {"num_filters": _WIDTH, "num_repeats": at_least(1, 64)},
  decoders.ASPP: {
    "level": _LEVEL,
    "dilation_rates": at_least(1, 1024),
    "dropout_rate": decay(),
    "num_filters": _WIDTH,
    "pool_kernel_size": at_least(1, MAX_SIDE, lengths=(0, 2)),
    "spp_layer_version": choice("v1", "v2"),
  },
}

_DETECTION: dict[type, dict[str, Rule]] = {
  RetinaNetHead: {
    **_ATTENTION,
    "num_convs": at_least(0, 64),
    "num_filters": _WIDTH,
    "spatial": choice(*SPATIAL),
    "value_stddev": positive(),
    # Options of Model Garden's head that sasa_tf's does not have.
    "attribute_heads": Rule(lengths=(0,)),
    "share_classification_heads": choice(False),
    "use_separable_conv": choice(False),
    "share_level_convs": choice(True, required=True),
  },
  RetinaNetTask: {"use_wod_metrics": choice(False)},
  retinanet.RetinaNetHead: {"num_convs": at_least(0, 64), "num_filters": _WIDTH},
  retinanet.RetinaNet: {
    "num_classes": at_least(0, MAX_CLASSES),
    "input_size": INPUT_SIZE,
    "min_level": _LEVEL,
    "max_level": _LEVEL,
  },
  retinanet.RetinaNetTask: {
    "init_checkpoint_modules": choice("all", "backbone", "decoder"),
    "max_num_eval_detections": at_least(1, 100_000),
  },
  retinanet.Parser: {
    "num_channels": choice(3),
    "match_threshold": fraction(),
    "unmatched_threshold": fraction(),
    "aug_scale_min": positive(64),
    "aug_scale_max": positive(64),
    "max_num_instances": at_least(1, 100_000),
  },
  retinanet.Anchor: {
    "num_scales": at_least(1, 64),
    "aspect_ratios": positive(
      lengths=tuple(range(1, 65)), description="a list of 1 to 64 numbers greater than 0"
    ),
    "anchor_size": positive(MAX_SIDE),
  },
  retinanet.Losses: {
    "loss_weight": positive(),
    "focal_loss_alpha": fraction(),
    "focal_loss_gamma": at_least(0),
    "huber_loss_delta": positive(),
    "box_loss_weight": at_least(0, hint=float),
    "l2_weight_decay": at_least(0),
  },
  retinanet.DetectionGenerator: {
    "pre_nms_top_k": at_least(1, 10_000_000),
    "pre_nms_score_threshold": fraction(),
    "nms_iou_threshold": fraction(),
    "max_num_detections": at_least(1, 100_000),
    "nms_version": choice("v1", "v2", "v3", "batched", "tflite"),
    "soft_nms_sigma": at_least(0),
    "box_coder_weights": positive(lengths=(4,)),
  },
}

_SEGMENTATION: dict[type, dict[str, Rule]] = {
  # Its hint has no null, but its experiments have: images of any size.
  semantic_segmentation.SemanticSegmentationModel: {"input_size": Rule(hint=list[int | None])},
}

RULES = {**_BACKBONES, **_DECODERS, **_DETECTION, **_SEGMENTATION}
