"""What the two export programs have in common: flags, checks, and the export itself.

Imports no TensorFlow, so that the programs check paths and formats at once.
"""

from __future__ import annotations

import os
import pathlib
from collections.abc import Mapping, Sequence

from absl import flags, logging

from sasa_tf.errors import UserError
from sasa_tf.serving.formats.format import OnnxOptions, SavedModelOptions

FLAGS = flags.FLAGS

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
  "SavedModel: input of serving_default. The other types get signatures with their names.",
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
flags.DEFINE_integer("batch_size", None, "Fixed batch size. Default: dynamic.", lower_bound=1)
flags.DEFINE_list(
  "input_image_size", None, "height,width of the model input. Default: that of the training."
)
flags.DEFINE_bool(
  "overwrite",
  False,
  "Replace existing outputs if this program wrote them and they hold no other files. Nothing else "
  "is ever replaced.",
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

  for flag, off in (("cpu_kernels", False), ("gpu_kernels", "none")):
    if FLAGS[flag].value != off and "saved_model" not in outputs:
      raise UserError(
        f"--{flag} is an option of --format=saved_model, which is not among the formats. Add it, "
        "or remove the flag."
      )
  inputs = {name: FLAGS[name].value for name in ("model_dir", "checkpoint_path", "labels")}
  inputs |= {f"config_file={file}": file for file in FLAGS.config_file or ()}
  check_export_paths(outputs, flags=flag_names, overwrite=FLAGS.overwrite, inputs=inputs)


def export(
  outputs: Mapping[str, str | os.PathLike], *, onnx: OnnxOptions | None = None
) -> tuple[str, bool]:
  """Exports the model that the flags specify.

  Args:
    outputs: {name of a format: path}, checked by `check_paths`.
    onnx: options of the ONNX format.

  Returns:
    The checkpoint, and whether the model is a detector.
  """
  from sasa_tf import registry_imports  # noqa: F401
  from sasa_tf.configs.retinanet import RetinaNetTask
  from sasa_tf.data.labels import read_labels
  from sasa_tf.serving.compiled_kernels.library_file import require_kernels
  from sasa_tf.serving.export import export_model
  from sasa_tf.serving.gpu_signature import choose_kernels
  from sasa_tf.training import checks, experiment, results

  if not FLAGS["verbosity"].present:
    # Converters load a model without gradients, which makes TensorFlow warn.
    logging.set_verbosity(logging.ERROR)
  image_size = _image_size(FLAGS.input_image_size or ())
  if FLAGS.cpu_kernels:
    require_kernels()
  choose_kernels(FLAGS.gpu_kernels)
  params = experiment.load_trained_experiment(
    FLAGS.model_dir,
    FLAGS.experiment,
    FLAGS.config_file or (),
    FLAGS.params_override,
    mode="export",
  )
  checkpoint = results.find_checkpoint(FLAGS.checkpoint_path, FLAGS.model_dir, params)
  class_names = (
    read_labels(FLAGS.labels) if FLAGS.labels else checks.read_class_names(params.task.train_data)
  )
  export_model(
    params,
    checkpoint_path=checkpoint,
    outputs=outputs,
    class_names=class_names,
    batch_size=FLAGS.batch_size,
    input_image_size=image_size,
    saved_model=SavedModelOptions(
      input_type=FLAGS.input_type,
      cpu_kernels=FLAGS.cpu_kernels,
      gpu_kernels=FLAGS.gpu_kernels,
    ),
    onnx=onnx,
    overwrite=FLAGS.overwrite,
  )
  return checkpoint, isinstance(params.task, RetinaNetTask)


def size_of(path: str | os.PathLike) -> int:
  """Returns the bytes of a file, or of all files in a directory."""
  root = pathlib.Path(path)
  files = root.rglob("*") if root.is_dir() else [root]
  return sum(file.stat().st_size for file in files if file.is_file())


def _image_size(flag: Sequence[str]) -> list[int]:
  if flag and (len(flag) != 2 or not all(size.isdecimal() and int(size) for size in flag)):
    raise UserError(
      f"--input_image_size must be height,width in pixels; received {','.join(flag)!r}."
    )
  return [int(size) for size in flag]
