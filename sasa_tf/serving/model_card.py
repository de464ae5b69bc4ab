"""model_card.md beside exported models: what the model is, its exports, inputs, outputs, limits."""

from __future__ import annotations

import json
import os
import pathlib
import re
from collections.abc import Sequence
from typing import Any, TypedDict

import sasa_tf
from sasa_tf.outputs.json_types import conforms
from sasa_tf.outputs.provenance import package_versions
from sasa_tf.reporting.table import Column, Table
from sasa_tf.serving.export_paths import CARD_HEADER
from sasa_tf.serving.exported import Exported
from sasa_tf.serving.formats.format import ExportOptions
from sasa_tf.serving.formats.registry import FORMATS
from sasa_tf.serving.model_config import used_config
from sasa_tf.serving.runtimes.registry import RUNTIMES

_EXPORTS = re.compile(r"^exports: (\[.*\])$", re.MULTILINE)
_MAX_NAMES = 20
# Hugging Face's names of the tasks.
_TAGS = {"classification": "image-classification", "detection": "object-detection"}


def write_model_card(
  file: pathlib.Path,
  card: pathlib.Path,
  module: Any,
  options: ExportOptions,
  exported: Sequence[Exported],
  checkpoint: str,
  image_source: str,
) -> None:
  """Writes the model card.

  Exports that an earlier card lists stay listed while they exist.

  Args:
    file: to write.
    card: final path; an earlier card there is read. The exports are in its directory.
    module: export module.
    options: of the export.
    exported: the exports.
    checkpoint: that was exported.
    image_source: what images the exports were verified on.
  """
  rows = [_row(each, card.parent, checkpoint, image_source) for each in exported]
  new = {row["format"] for row in rows}
  rows += [row for row in _earlier(card) if row["format"] not in new]
  detector = options.metadata.task == "detection"
  config = json.dumps(used_config(module.params.task.model), indent=1, default=str)
  sections = [
    f"{CARD_HEADER.decode()}pipeline_tag: {_TAGS[options.metadata.task]}\n"
    f"exports: {json.dumps(rows, ensure_ascii=False)}\n---",
    f"# {'Object detector' if detector else 'Image classifier'}, "
    f"{module.params.task.model.backbone.type}",
    _model(module, options, checkpoint),
    _exports(rows),
    _interface(options),
    _limits(module, options, rows),
    "## Configuration\n\n`task.model` of the experiment; the SavedModel holds all of it in "
    f"params.yaml.\n\n```json\n{config}\n```",
  ]
  file.write_text("\n\n".join(sections) + "\n", encoding="utf-8")


class ExportRow(TypedDict):
  """The record of an export in a card."""

  format: str
  file: str
  bytes: int
  quantize: str
  checkpoint: str
  verification: list[str]
  images: str
  accuracy: str


def _row(each: Exported, folder: pathlib.Path, checkpoint: str, source: str) -> ExportRow:
  """Returns the record of an export as JSON values."""
  return {
    "format": each.format_name,
    "file": each.path.relative_to(folder).as_posix(),
    "bytes": each.num_bytes,
    "quantize": each.quantize,
    "checkpoint": checkpoint,
    "verification": [*each.verification],
    "images": source if each.verification and each.format_name in RUNTIMES else "",
    "accuracy": each.accuracy,
  }


def _earlier(card: pathlib.Path) -> list[ExportRow]:
  """Returns the records of an earlier card whose files exist."""
  try:
    found = _EXPORTS.search(card.read_text(encoding="utf-8"))
    rows = json.loads(found[1]) if found else []
  except (OSError, RecursionError, ValueError):
    return []
  if not isinstance(rows, list):
    return []
  return [
    row for row in rows if conforms(row, ExportRow) and os.path.exists(card.parent / row["file"])
  ]


def _model(module: Any, options: ExportOptions, checkpoint: str) -> str:
  names = options.metadata.class_names
  height, width = options.metadata.preprocessing["image_size"]
  lines = {
    "checkpoint": f"`{checkpoint}`",
    "parameters": f"{sum(w.shape.num_elements() for w in module.model.trainable_weights):,}",
    "input": f"{height} x {width} pixels, RGB",
    "classes": f"{module.params.task.model.num_classes}{_listed(names)}",
    "written by": ", ".join(
      [
        f"sasa_tf {sasa_tf.__version__}",
        *(
          f"{name} {version}"
          for name, version in package_versions(["tensorflow", "tf_keras", "keras"]).items()
        ),
      ]
    ),
  }
  return "## Model\n\n" + "\n".join(f"* {name}: {value}" for name, value in lines.items())


def _listed(names: Sequence[str] | None) -> str:
  if names is None:
    return ", without names"
  more = f" and {len(names) - _MAX_NAMES} more" if len(names) > _MAX_NAMES else ""
  return f": {', '.join(names[:_MAX_NAMES])}{more}"


def _exports(rows: Sequence[ExportRow]) -> str:
  table = Table([Column(title, "left") for title in ("file", "format", "MB", "quantized")])
  details = []
  for row in rows:
    known = FORMATS.get(row["format"])
    table.add_row(
      f"`{row['file']}`",
      known.description if known else row["format"],
      f"{row['bytes'] / 1e6:.2f}",
      row["quantize"],
    )
    details += [f"{row['file']}, checkpoint {row['checkpoint']}:"]
    details += [f"  {line}" for line in row["verification"] or ["not verified"]]
    details += [f"  on {row['images']}"] if row["images"] else []
    details += [f"  {row['accuracy']}"] if row["accuracy"] else []
  verification = "\n".join(details)
  return (
    f"## Exports\n\n{table.to_markdown()}\nEach was compared with the trained model, those "
    "that are marked as verified by their own runtime in a fresh process:\n\n"
    f"```text\n{verification}\n```"
  )


def _interface(options: ExportOptions) -> str:
  metadata = options.metadata
  preprocessing = "\n".join(
    f"* {key}: {json.dumps(value)}" for key, value in metadata.preprocessing.items()
  )
  outputs = "\n".join(f"* `{name}`: {content}" for name, content in metadata.outputs.items())
  return (
    "## Inputs and outputs\n\nThe SavedModel takes decoded and encoded images of any size and "
    "prepares them itself. The other formats take prepared images:\n\n"
    f"{preprocessing}\n\nOutputs:\n\n{outputs}"
  )


def _limits(module: Any, options: ExportOptions, rows: Sequence[ExportRow]) -> str:
  height, width = options.metadata.preprocessing["image_size"]
  lines = [
    "The model knows the classes of its training data only, and gives one of them for any image."
    if options.metadata.task == "classification"
    else "Objects that are smaller than the smallest anchor after the resizing are missed.",
    f"Images are resized to {height} x {width} pixels; details below that size are lost.",
  ]
  if any(row["quantize"] == "int8" for row in rows):
    lines.append("int8: the ranges were calibrated on images of the data; others may saturate.")
  if any(not row["verification"] for row in rows):
    lines.append("Exports that are marked as not verified may differ from the trained model.")
  return "## Limits\n\n" + "\n".join(f"* {line}" for line in lines)
