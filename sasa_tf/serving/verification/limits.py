"""How far the outputs of an exported model may be from those of the trained model."""

from __future__ import annotations

import dataclasses
import math

_NONE = math.inf


@dataclasses.dataclass(frozen=True)
class Limits:
  """Largest differences that are rounding.

  Attributes:
    probs: of probabilities, and of the scores of matched detections.
    logits: of logits, relative to the largest absolute logit of the images, at least 1.
    top_classes: smallest share of images with the same top class. Images count whose two classes
      are equally probable within the limit of `probs`.
    boxes: of matched boxes' coordinates, as a share of the longer side of the image.
    matched: smallest share of detections that both models find.
    average_precision: smallest COCO AP of the exported model's detections, where those of the
      trained model are the ground truth.
  """

  probs: float
  logits: float
  top_classes: float
  boxes: float
  matched: float
  average_precision: float


# By the precision of the exported model's weights and operations. One rounding is relative to the
# value 2^-24 in float32, 2^-12 in float16 and 2^-9 in bfloat16. Through the 50 layers of a network,
# and with the sums in another order, these grow about tenfold to a hundredfold. Near the limits of
# suppression, rounding adds or drops a detection.
#
# In int8 the largest differences depend on the calibration, so only the classes and detections are
# compared. Its accuracy on the validation data says more.
LIMITS = {
  "float32": Limits(1e-4, 1e-3, top_classes=1.0, boxes=1e-3, matched=0.98, average_precision=0.98),
  "float16": Limits(2e-2, 2e-2, top_classes=1.0, boxes=1e-2, matched=0.9, average_precision=0.9),
  "bfloat16": Limits(1e-1, 1e-1, top_classes=1.0, boxes=5e-2, matched=0.8, average_precision=0.8),
  "int8": Limits(_NONE, _NONE, top_classes=0.8, boxes=_NONE, matched=0.6, average_precision=0.5),
}
