"""The export formats by name."""

from __future__ import annotations

from collections.abc import Sequence

from sasa_tf import extras
from sasa_tf.errors import UserError, did_you_mean
from sasa_tf.serving.formats import keras, litert, onnx, openvino, preset, saved_model, tfjs
from sasa_tf.serving.formats.format import ExportFormat, Quantization

FORMATS = {
  each.name: each
  for each in (
    saved_model.FORMAT,
    litert.FORMAT,
    onnx.FORMAT,
    openvino.FORMAT,
    tfjs.FORMAT,
    keras.FORMAT,
    preset.FORMAT,
  )
}


def find_formats(names: Sequence[str], quantize: Quantization = "none") -> list[ExportFormat]:
  """Returns the formats of --format, after a check that their packages are installed.

  Args:
    names: keys of `FORMATS`; repetitions are ignored.
    quantize: value of --quantize.

  Raises:
    UserError: a format is unknown or cannot be quantized so, or none is given.
    MissingExtraError: a package is missing; the message names the extras that install it.
  """
  names = list(dict.fromkeys(names))
  if not names:
    raise UserError(f"--format is empty; expected some of {', '.join(FORMATS)}.")
  for name in names:
    if name not in FORMATS:
      raise UserError(f"--format={name}: no such format. {did_you_mean(name, FORMATS, cutoff=0.6)}")
  found = [FORMATS[name] for name in names]
  unsupported = [each.name for each in found if quantize not in each.quantizations]
  if unsupported:
    able = [each.name for each in FORMATS.values() if quantize in each.quantizations]
    raise UserError(
      f"--quantize={quantize} is not available for --format={','.join(unsupported)}; expected some "
      f"of {', '.join(able)}. Export the other formats without it."
    )
  for each in found:
    extras.require(f"--format={each.name}", *each.requires)
  return found
