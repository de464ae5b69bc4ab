"""The tables of the paper (arXiv 1906.05909) as printed, and the models of their rows.

FLOPs are in billions, with a multiply-add as two; parameters in millions; accuracies in percent.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

_ALL = (1, 2, 3, 4)

# Name -> arguments of SASAResNet. Each has a file official_configs/imagenet/NAME.yaml.
MODELS: Mapping[str, Mapping[str, Any]] = {
  **{f"resnet{size}": {"model_id": size, "attention_groups": ()} for size in (26, 38, 50)},
  **{
    f"sasa_resnet{size}_conv_stem": {"model_id": size, "attention_groups": _ALL}
    for size in (26, 38, 50)
  },
  **{
    f"sasa_resnet{size}": {"model_id": size, "attention_groups": _ALL, "stem": "attention"}
    for size in (26, 38, 50)
  },
  **{
    f"sasa_resnet50_groups_{''.join(map(str, groups))}": {
      "model_id": 50,
      "attention_groups": groups,
    }
    for groups in ((2, 3, 4), (3, 4), (4,), (1,), (1, 2), (1, 2, 3))
  },
  **{
    f"sasa_resnet50_kernel_{size}": {
      "model_id": 50,
      "attention_groups": _ALL,
      "kernel_size": size,
    }
    for size in (3, 5, 9, 11)
  },
  **{
    f"sasa_resnet50_positions_{positions}": {
      "model_id": 50,
      "attention_groups": _ALL,
      "positions": positions,
    }
    for positions in ("none", "absolute")
  },
  "sasa_resnet50_without_content": {
    "model_id": 50,
    "attention_groups": _ALL,
    "content": False,
  },
  **{
    f"sasa_resnet50_stem_{variant}": {
      "model_id": 50,
      "attention_groups": _ALL,
      "stem": "attention",
      "stem_variant": variant,
    }
    for variant in ("standalone", "conv_values")
  },
}


@dataclasses.dataclass(frozen=True)
class Detector:
  """A RetinaNet of Table 2.

  Attributes:
    backbone: key of `MODELS`.
    pyramid: "conv", or "attention" in place of the 3x3 convolutions of the pyramid.
    heads: "conv", or "attention" in place of the 3x3 convolutions of the heads.
  """

  backbone: str
  pyramid: str
  heads: str

  @property
  def interpretation(self) -> str:
    """Which parts have attention; the paper allows two interpretations of attention heads."""
    if self.heads == "conv":
      return "conv heads and FPN"
    return "attention heads" if self.pyramid == "conv" else "attention heads and FPN"

  @property
  def label(self) -> str:
    """Interpretation and backbone."""
    return f"{self.interpretation}, {self.backbone.replace('_', ' ')}"


_TABLE_2 = ("resnet50", "sasa_resnet50_conv_stem", "sasa_resnet50")

# Name -> the detector. Each has a file official_configs/coco/NAME.yaml.
DETECTORS: Mapping[str, Detector] = {
  **{f"retinanet_{name}": Detector(name, "conv", "conv") for name in _TABLE_2},
  **{
    f"retinanet_{name}_attention_{part}": Detector(name, pyramid, "attention")
    for part, pyramid in (("heads", "conv"), ("heads_fpn", "attention"))
    for name in _TABLE_2[1:]
  },
}


@dataclasses.dataclass(frozen=True)
class Row:
  """A row of a table.

  Attributes:
    label: name of the row in the paper.
    model: key of `MODELS`; that of the backbone in Table 2.
    flops: as printed, in billions; None if the table has none.
    parameters: as printed, in millions; None if the table has none.
    accuracy: top-1 accuracy in percent; None in Table 2.
    notes: {"flops" or "parameters": why the computed digit differs}.
  """

  label: str
  model: str
  flops: float | None
  parameters: float | None
  accuracy: float | None
  notes: Mapping[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class DetectionRow(Row):
  """A row of Table 2: RetinaNet on COCO at 640 pixels.

  Attributes:
    heads: "conv" or "attention", for the feature pyramid and the heads.
    average_precision: in percent: over all IoU thresholds, at 50 % and at 75 % IoU, and for small,
      medium and large objects.
  """

  heads: str = "conv"
  average_precision: tuple[float, float, float, float, float, float] = (0, 0, 0, 0, 0, 0)


@dataclasses.dataclass(frozen=True)
class PaperTable:
  """A table of the paper.

  Attributes:
    number: number of the table.
    title: what the table compares.
    split: data set of the accuracies.
    rows: as printed, from top to bottom.
  """

  number: int
  title: str
  split: str
  rows: tuple[Row, ...]


_VALIDATION = "ImageNet's validation images"
_HELD_OUT = "a held-out 4 % of ImageNet's training images"

_TRUNCATED = "the paper truncates this number instead of rounding it"
_FITTED = (
  "the paper does not define its FLOPs; the convention was fitted to all rows and misses 3 of them"
)
_KERNEL_NOT_STATED = f"{_FITTED}; the paper does not give this kernel size either (here 4x4)"


def _detection(heads, model, flops, parameters, *average_precision) -> DetectionRow:
  return DetectionRow(
    label=f"{heads} heads + FPN, {model.replace('_', ' ')}",
    model=model,
    flops=flops,
    parameters=parameters,
    accuracy=None,
    heads=heads,
    average_precision=average_precision,
  )


TABLES: Mapping[int, PaperTable] = {
  table.number: table
  for table in (
    PaperTable(
      1,
      "ResNets on ImageNet",
      _VALIDATION,
      (
        Row("ResNet-26, convolution", "resnet26", 4.7, 13.7, 74.5),
        Row("ResNet-26, conv stem + attention", "sasa_resnet26_conv_stem", 4.5, 10.3, 75.8),
        Row("ResNet-26, full attention", "sasa_resnet26", 4.7, 10.3, 74.8),
        Row("ResNet-38, convolution", "resnet38", 6.5, 19.6, 76.2),
        Row(
          "ResNet-38, conv stem + attention",
          "sasa_resnet38_conv_stem",
          5.7,
          14.1,
          77.1,
          {"parameters": _TRUNCATED},
        ),
        Row(
          "ResNet-38, full attention",
          "sasa_resnet38",
          6.0,
          14.1,
          76.9,
          {"parameters": _TRUNCATED},
        ),
        Row("ResNet-50, convolution", "resnet50", 8.2, 25.6, 76.9),
        Row("ResNet-50, conv stem + attention", "sasa_resnet50_conv_stem", 7.0, 18.0, 77.4),
        Row("ResNet-50, full attention", "sasa_resnet50", 7.2, 18.0, 77.6),
      ),
    ),
    PaperTable(
      2,
      "RetinaNet on COCO",
      "COCO's validation images",
      (
        _detection("conv", "resnet50", 182, 33.4, 36.5, 54.3, 39.0, 18.3, 40.6, 51.7),
        _detection(
          "conv", "sasa_resnet50_conv_stem", 173, 25.9, 36.8, 54.6, 39.3, 18.4, 41.1, 51.7
        ),
        _detection("conv", "sasa_resnet50", 173, 25.9, 36.2, 54.0, 38.7, 17.5, 40.3, 51.7),
        _detection(
          "attention", "sasa_resnet50_conv_stem", 111, 22.0, 36.6, 54.3, 39.1, 19.0, 40.7, 51.1
        ),
        _detection("attention", "sasa_resnet50", 110, 22.0, 36.6, 54.5, 39.2, 18.5, 40.6, 51.6),
      ),
    ),
    PaperTable(
      3,
      "groups of convolution | groups of attention",
      _HELD_OUT,
      (
        Row("- | 1234", "sasa_resnet50_conv_stem", 7.0, 18.0, 80.2),
        Row("1 | 234", "sasa_resnet50_groups_234", 7.3, 18.1, 80.7),
        Row("12 | 34", "sasa_resnet50_groups_34", 7.5, 18.5, 80.7),
        Row("123 | 4", "sasa_resnet50_groups_4", 8.0, 20.8, 80.2),
        Row("1234 | -", "resnet50", 8.2, 25.6, 79.5),
        Row("234 | 1", "sasa_resnet50_groups_1", 7.9, 25.5, 79.7, {"flops": _FITTED}),
        Row("34 | 12", "sasa_resnet50_groups_12", 7.8, 25.0, 79.6, {"parameters": _TRUNCATED}),
        Row("4 | 123", "sasa_resnet50_groups_123", 7.2, 22.7, 79.9),
      ),
    ),
    PaperTable(
      4,
      "size of the window",
      _VALIDATION,
      (
        Row("3 x 3", "sasa_resnet50_kernel_3", 6.6, None, 76.4),
        Row("5 x 5", "sasa_resnet50_kernel_5", 6.7, None, 77.2),
        Row("7 x 7", "sasa_resnet50_conv_stem", 7.0, None, 77.4),
        Row("9 x 9", "sasa_resnet50_kernel_9", 7.3, None, 77.7),
        Row("11 x 11", "sasa_resnet50_kernel_11", 7.7, None, 77.6, {"flops": _FITTED}),
      ),
    ),
    PaperTable(
      5,
      "positions",
      _HELD_OUT,
      (
        Row("none", "sasa_resnet50_positions_none", 6.9, 18.0, 77.6),
        Row("absolute", "sasa_resnet50_positions_absolute", 6.9, 18.0, 78.2),
        Row("relative", "sasa_resnet50_conv_stem", 7.0, 18.0, 80.2),
      ),
    ),
    PaperTable(
      6,
      "content and positions",
      _VALIDATION,
      (
        Row(
          "q.r",
          "sasa_resnet50_without_content",
          6.1,
          16.7,
          76.9,
          {"parameters": _TRUNCATED},
        ),
        Row("q.k + q.r", "sasa_resnet50_conv_stem", 7.0, 18.0, 77.4),
      ),
    ),
    PaperTable(
      7,
      "stem of the full-attention network",
      _VALIDATION,
      (
        Row("stand-alone attention", "sasa_resnet50_stem_standalone", 7.1, None, 76.2),
        Row(
          "convolution for the values",
          "sasa_resnet50_stem_conv_values",
          7.4,
          None,
          77.2,
          {"flops": _KERNEL_NOT_STATED},
        ),
        Row("mixture of values", "sasa_resnet50", 7.2, None, 77.6),
      ),
    ),
  )
}

# Savings of full attention compared to convolution according to the abstract, in percent: of
# ResNet-50, and of RetinaNet.
FLOPS_SAVED = 12
PARAMETERS_SAVED = 29
DETECTION_FLOPS_SAVED = 39
DETECTION_PARAMETERS_SAVED = 34


def rows_of(model: str) -> list[tuple[PaperTable, Row]]:
  """Returns the tables and rows of a classifier of `MODELS`."""
  return [
    (table, row)
    for table in TABLES.values()
    for row in table.rows
    if row.model == model and not isinstance(row, DetectionRow)
  ]
