"""Class names, preprocessing and outputs of a model, which every exported file carries."""

from __future__ import annotations

import dataclasses
import json
from typing import Any, Literal

import sasa_tf


@dataclasses.dataclass(frozen=True)
class ModelMetadata:
  """What a client needs besides the model itself.

  Attributes:
    task: "classification" or "detection".
    class_names: in label order, with the background first for detectors; None if unknown.
    preprocessing: of the images, as JSON values; see `describe_preprocessing`.
    outputs: {name of an output: what it holds}.
  """

  task: Literal["classification", "detection"]
  class_names: tuple[str, ...] | None
  preprocessing: dict[str, Any]
  outputs: dict[str, str]

  def to_dict(self) -> dict[str, Any]:
    """Returns the metadata as JSON values."""
    return {
      "producer": f"sasa_tf {sasa_tf.__version__}",
      "task": self.task,
      "labels": None if self.class_names is None else list(self.class_names),
      "preprocessing": self.preprocessing,
      "outputs": self.outputs,
    }

  def to_json(self, **more: Any) -> str:
    """Returns the metadata, and more values that are not None, as the text of a JSON file."""
    present = {key: value for key, value in more.items() if value is not None}
    return json.dumps(self.to_dict() | present, indent=2, ensure_ascii=False) + "\n"

  def to_properties(self) -> dict[str, str]:
    """Returns the metadata for formats that hold strings only, such as ONNX's metadata_props."""
    return {
      key: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
      for key, value in self.to_dict().items()
      if value is not None
    }
