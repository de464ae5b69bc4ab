"""What the two export programs have in common: flags, checks, and the export itself.

Imports no TensorFlow, so that the programs check paths and formats at once.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from absl import flags, logging

from sasa_tf.bin import preset_flag, program
from sasa_tf.errors import UserError

program.require("PIL", "official", "tf_keras")

from sasa_tf.serving.formats.format import OnnxOptions, Quantization, SavedModelOptions

if TYPE_CHECKING:
  from sasa_tf.modeling.presets import Preset
  from sasa_tf.serving.exported import Exported

FLAGS = flags.FLAGS

flags.adopt_module_key_flags(preset_flag)

# Of classifiers and detectors, with and without class names.
_SIGNATURES = ("image_tensor", "image_bytes", "tf_example", "prepared", "classify", "detect")

_VERIFIED_IMAGES = 8
# Pixels and the output of the stem, in float32.
_BYTES_PER_PIXEL = 3 * 4 + 64 * 4 // 16

flags.DEFINE_string("model_dir", None, "Model directory of the training.")
flags.DEFINE_string(
  "checkpoint_path", None, "Checkpoint, or a directory with one. Default: the best of --model_dir."
)
flags.DEFINE_string("experiment", None, "Experiment. Default: that of --model_dir.")
flags.DEFINE_multi_string("config_file", None, "YAML files that override the experiment.")
flags.DEFINE_string("params_override", None, "YAML string of overrides, applied last.")
flags.DEFINE_string(
  "labels", None, "File of class names, one per line. Default: that of the training data."
)
flags.DEFINE_enum(
  "input_type",
  "image_tensor",
  ["image_tensor", "image_bytes", "tf_example"],
  "SavedModel: the signature that is also serving_default.",
)
flags.DEFINE_list(
  "signatures",
  None,
  "SavedModel: signatures to write, of image_tensor, image_bytes, tf_example, prepared, and with "
  "class names classify or detect. Default: all.",
)
flags.DEFINE_integer(
  "warmup_requests",
  1,
  "SavedModel: warm-up requests for TensorFlow Serving, for each signature.",
  lower_bound=0,
  upper_bound=1000,  # of TensorFlow Serving
)
flags.DEFINE_bool(
  "cpu_kernels",
  False,
  "SavedModel: copy the compiled kernels to assets.extra, from where libsasa_tf.so must be loaded "
  "before the signatures are called. Signatures without kernels are added as NAME_stock.",
)
flags.DEFINE_enum(
  "gpu_kernels",
  "none",
  ["auto", "ptx", "triton", "none"],
  "SavedModel: adds the signature `gpu`, compiled by XLA, with attention kernels as text inside: "
  "ptx for TensorFlow 2.21 and later, triton for 2.20 and later. They need nvcc here, but neither "
  "nvcc nor sasa_tf where the model is served. auto: as this TensorFlow has, if nvcc is installed.",
)
flags.DEFINE_integer(
  "batch_size", None, "Fixed batch size. Default: dynamic.", lower_bound=1, upper_bound=1 << 16
)
flags.DEFINE_list(
  "input_image_size", None, "height,width of the model input. Default: that of the training."
)
flags.DEFINE_bool(
  "verify",
  True,
  "Run each export in a fresh process with its own runtime, and compare it with the trained model. "
  "If it differs, nothing is written.",
)
flags.DEFINE_string(
  "verification_images",
  None,
  "Pattern of image files for the verification. Default: images of the validation data.",
)
flags.DEFINE_bool(
  "versioned",
  False,
  "Write the SavedModel to the next free number below its directory, as TensorFlow Serving polls.",
)
flags.DEFINE_bool(
  "overwrite",
  False,
  "Replace existing outputs if this program wrote them and they hold no other files. Nothing else "
  "is ever replaced.",
)


_SAVED_MODEL_FLAGS = ("cpu_kernels", "gpu_kernels", "input_type", "signatures", "warmup_requests")
_NO_ENCODED_IMAGES = (
  " The other formats take images of the model's input size only: their runtimes do not decode "
  "images (ONNX Runtime does not implement ImageDecoder, the operation of opset 20)."
)


def check_paths(
  outputs: Mapping[str, str | os.PathLike], flag_names: Mapping[str, str] | None = None
) -> None:
  """Checks the outputs before anything else is loaded, which takes half a minute.

  Args:
    outputs: {name of a format: path}.
    flag_names: {name of a format: flag with its path}.
  """
  from sasa_tf.serving.export_paths import check_export_paths

  for flag in _SAVED_MODEL_FLAGS:
    if FLAGS[flag].value != FLAGS[flag].default and "saved_model" not in outputs:
      more = _NO_ENCODED_IMAGES if flag in ("input_type", "signatures") else ""
      raise UserError(
        f"--{flag} is an option of --format=saved_model, which is not among the formats. Add it, "
        f"or remove the flag.{more}"
      )
  unknown = set(FLAGS.signatures or ()) - set(_SIGNATURES)
  if unknown:
    raise UserError(
      f"--signatures must be some of {', '.join(_SIGNATURES)}; received {', '.join(unknown)}."
    )
  names = ("model_dir", "checkpoint_path", "labels", "preset")
  inputs = {name: FLAGS[name].value for name in names}
  inputs |= {f"config_file={file}": file for file in FLAGS.config_file or ()}
  check_export_paths(outputs, flags=flag_names, overwrite=FLAGS.overwrite, inputs=inputs)


def check_verification(outputs: Mapping[str, str | os.PathLike]) -> None:
  """Raises a `UserError` if the exports cannot be verified, because a package is missing."""
  from sasa_tf.serving.runtimes.registry import RUNTIMES, find_runtime

  for name in RUNTIMES.keys() & outputs.keys() if FLAGS.verify else ():
    find_runtime(name)


def export(
  outputs: Mapping[str, str | os.PathLike],
  *,
  preset: Preset | None,
  quantize: Quantization = "none",
  num_calibration_images: int = 0,
  model_card: str | os.PathLike | None = None,
  onnx: OnnxOptions | None = None,
) -> tuple[list[Exported], str, bool]:
  """Exports the model that the flags specify.

  Args:
    outputs: {name of a format: path}, checked by `check_paths`.
    preset: from `find_preset`.
    quantize: see `ExportOptions`.
    num_calibration_images: maximum number of images of the training data.
    model_card: file to write, or None.
    onnx: options of the ONNX format.

  Returns:
    The exports, a line about the images of the verification, and whether the model is a detector.
  """
  from sasa_tf import registry_imports  # noqa: F401
  from sasa_tf.bin.export_images import find_images
  from sasa_tf.configs.retinanet import RetinaNetTask
  from sasa_tf.serving.compiled_kernels.library_file import require_kernels
  from sasa_tf.serving.export import export_model
  from sasa_tf.serving.gpu_signature import choose_kernels

  is_verbose = FLAGS["verbosity"].present
  if not is_verbose:
    # Converters load a model without gradients, which makes TensorFlow warn.
    logging.set_verbosity(logging.ERROR)
  image_size = _image_size(FLAGS.input_image_size or ())
  if FLAGS.cpu_kernels:
    require_kernels()
  choose_kernels(FLAGS.gpu_kernels)
  params, weights = _trained_model(preset)
  _check_memory(image_size or params.task.model.input_size[:2], FLAGS.batch_size or 1)
  images = find_images(
    params,
    verify=FLAGS.verify,
    pattern=FLAGS.verification_images,
    quantize=quantize,
    num_calibration_images=num_calibration_images,
  )
  notes: list[str] = []
  exported = export_model(
    params,
    weights=weights,
    outputs=outputs,
    class_names=_class_names(params, weights),
    batch_size=FLAGS.batch_size,
    input_image_size=image_size,
    saved_model=SavedModelOptions(
      input_type=FLAGS.input_type,
      signatures=tuple(FLAGS.signatures) if FLAGS.signatures else None,
      warmup_requests=FLAGS.warmup_requests,
      cpu_kernels=FLAGS.cpu_kernels,
      gpu_kernels=FLAGS.gpu_kernels,
      report=notes.append,  # printed at the end, as the output of converters is hidden
    ),
    onnx=onnx,
    quantize=quantize,
    images=images,
    model_card=model_card,
    overwrite=FLAGS.overwrite,
    progress=logging.info,
    hide_output=not is_verbose,
  )
  verified = _verified(exported, images.source) if FLAGS.verify else "not verified"
  lines = [f"exported {FLAGS.preset or weights}", verified, *notes]
  return exported, "\n".join(lines), isinstance(params.task, RetinaNetTask)


def _verified(exported: Sequence[Exported], source: str) -> str:
  """Returns a line about the verification; formats without a runtime have weights alone."""
  from sasa_tf.serving.runtimes.registry import RUNTIMES

  names = [each.format_name for each in exported]
  weights = ", ".join(name for name in names if name not in RUNTIMES)
  parts = [f"on {source}"] if RUNTIMES.keys() & set(names) else []
  return f"verified {', '.join([*parts, *([f'{weights} by its weights'] if weights else [])])}"


def find_preset() -> Preset | None:
  """Returns the preset of --preset, before Model Garden is imported; None without the flag.

  Raises:
    UserError: another flag selects a model too, or there is no such preset.
  """
  if not FLAGS.preset:
    return None
  others = ("model_dir", "checkpoint_path", "experiment", "config_file")
  if given := [name for name in others if FLAGS[name].value]:
    raise UserError(f"--preset and --{given[0]} both select a model. Remove one of them.")
  from sasa_tf.modeling import presets

  return presets.find_preset(FLAGS.preset)


def _trained_model(preset: Preset | None) -> tuple[Any, Any]:
  """Returns the configuration, and a checkpoint or the preset."""
  from sasa_tf.training import experiment, results
  from sasa_tf.training.model_differences import check_exported_model

  if preset is not None:
    params = experiment.load_preset_experiment(preset, FLAGS.params_override, mode="export")
    return params, preset
  params = experiment.load_trained_experiment(
    FLAGS.model_dir,
    FLAGS.experiment,
    FLAGS.config_file or (),
    FLAGS.params_override,
    mode="export",
  )
  checkpoint = results.find_checkpoint(FLAGS.checkpoint_path, FLAGS.model_dir, params)
  check_exported_model(params, checkpoint, FLAGS.model_dir)
  return params, checkpoint


def _class_names(params: Any, weights: Any) -> tuple[str, ...] | None:
  """Returns the names of --labels, else those of the preset, --model_dir or training data."""
  from sasa_tf.data.labels import read_labels
  from sasa_tf.serving.model_description import check_class_names
  from sasa_tf.training import checks, model_labels

  if FLAGS.labels:
    source, names = f"--labels={FLAGS.labels}", read_labels(FLAGS.labels)
  elif FLAGS.preset:
    source, names = f"--preset={FLAGS.preset}", weights.labels
  elif names := model_labels.read(FLAGS.model_dir):
    source = f"labels.txt of --model_dir={FLAGS.model_dir}"
  else:
    source, names = "labels.txt of task.train_data", checks.read_class_names(params.task.train_data)
  check_class_names(params, names, source)
  return names


def versioned(outputs: Mapping[str, str | os.PathLike]) -> dict[str, str | os.PathLike]:
  """Returns the outputs, with the SavedModel's next version if --versioned."""
  from sasa_tf.serving.export_paths import next_version

  if not FLAGS.versioned or "saved_model" not in outputs:
    return dict(outputs)
  return {**outputs, "saved_model": next_version(outputs["saved_model"])}


def _check_memory(image_size: Sequence[int], batch_size: int) -> None:
  """Raises a `UserError` if the images of the verification do not fit into the memory."""
  from sasa_tf.training.config_validation import memory

  height, width = image_size
  images = max(_VERIFIED_IMAGES, batch_size)
  needed = float(images * _BYTES_PER_PIXEL * height * width)
  available = memory.available_memory()
  if needed > available:
    raise UserError(
      f"--input_image_size={height},{width}, --batch_size={batch_size}: an export needs at least "
      f"{memory.format_gib(needed)} of memory for {images} images of this size, but this machine "
      f"has {memory.format_gib(available)}. Use a smaller size or batch."
    )


def _image_size(flag: Sequence[str]) -> list[int]:
  if flag and (len(flag) != 2 or not all(size.isdecimal() and int(size) for size in flag)):
    raise UserError(
      f"--input_image_size must be height,width in pixels; received {','.join(flag)!r}."
    )
  return [int(size) for size in flag]
