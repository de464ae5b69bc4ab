"""Checks the class names that signatures of SavedModels return, and removes them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

Outputs = dict[str, np.ndarray]


def without_class_names(outputs: Outputs, names: Sequence[str]) -> Outputs:
  """Returns the outputs of a signature as those of a signature without class names.

  TensorFlow Serving's classify method returns `classes` and `scores` [B, classes], the best first;
  they become `probs`. Names of detections are compared with `detection_classes`.

  Args:
    outputs: of the exported model by name.
    names: class names in label order.

  Raises:
    ValueError: a name is not that of its class.
  """
  labels = {name.encode(): label for label, name in enumerate(names)}
  if {"classes", "scores"} <= outputs.keys():
    if unknown := set(outputs["classes"].reshape(-1).tolist()) - labels.keys():
      raise ValueError(f"classes {sorted(unknown)[:5]} are not those of the model")
    order = np.vectorize(labels.__getitem__, otypes=[int])(outputs["classes"])
    probs = np.full(outputs["scores"].shape, np.nan, np.float32)
    np.put_along_axis(probs, order, outputs["scores"], axis=1)
    return {"probs": probs}
  found = dict(outputs)
  if "detection_class_names" in found:
    received = found.pop("detection_class_names").reshape(-1).tolist()
    classes = found["detection_classes"].astype(int).reshape(-1).tolist()
    # Beyond the detections, class 0 has no name.
    expected = [names[label].encode() if label else b"" for label in classes]
    if received != expected:
      raise ValueError("detection_class_names are not those of detection_classes")
  return found
