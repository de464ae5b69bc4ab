"""Prints the cost of a model by layer, or compares the paper's tables to the computed cost.

  python -m sasa_tf.bin.profile_model --model_id=50 --stem=attention
  python -m sasa_tf.bin.profile_model --config_file=imagenet/sasa_resnet50.yaml --by=block
  python -m sasa_tf.bin.profile_model --paper_tables=1,3,4,5,6,7 --plot=paper.png
  python -m sasa_tf.bin.profile_model --paper_tables=2

Parameters, FLOPs and bytes are counted in closed form, without executing the model and
independently of the implementation of attention. There are two conventions for FLOPs: `mac` counts
2 per multiply-add of convolutions, projections, q.k, q.r and a.v; `paper` was fitted to the rows of
the paper's tables.
"""

from __future__ import annotations

import os
import pathlib
import re
from typing import Any

from absl import flags

from sasa_tf.bin import program
from sasa_tf.errors import UserError
from sasa_tf.outputs.path_checks import check_file

program.require("rich")

FLAGS = flags.FLAGS

_MAX_SIDE = 65_500

# Arguments of SASAResNet; omitted flags mean its defaults.
_MODEL_FLAGS = (
  flags.DEFINE_integer("model_id", None, "ResNet depth: 26, 38 or 50 (default)."),
  flags.DEFINE_enum(
    "stem", None, ["conv", "conv_small", "attention"], "Type of the stem; conv by default."
  ),
  flags.DEFINE_list(
    "attention_groups", None, "Stages with attention, all by default; --attention_groups= for none."
  ),
  flags.DEFINE_float(
    "width_multiplier", None, "Factor of all channels (paper Fig. 5).", upper_bound=64
  ),
  flags.DEFINE_integer(
    "kernel_size", None, "Window size of the attention, odd; 7 by default.", 1, 255
  ),
  flags.DEFINE_integer("num_heads", None, "Number of attention heads; 8 by default.", 1, 1024),
  flags.DEFINE_enum(
    "positions", None, ["relative", "absolute", "none"], "Positions; relative by default."
  ),
  flags.DEFINE_bool("content", None, "Whether the logits include q.k; --nocontent for q.r alone."),
  flags.DEFINE_string(
    "implementation", None, "Implementation of attention; only affects the profiler."
  ),
  flags.DEFINE_enum(
    "stem_variant",
    None,
    ["mixture", "standalone", "conv_values"],
    "Value transform of --stem=attention.",
  ),
  flags.DEFINE_integer("stem_num_heads", None, "Heads of --stem=attention; 4 by default.", 1, 1024),
  flags.DEFINE_integer(
    "stem_num_mixtures", None, "Value matrices of --stem=attention; 8 by default.", 1, 1024
  ),
  flags.DEFINE_enum(
    "baseline",
    None,
    ["conv", "squeeze_excitation", "non_local", "attention_augmented"],
    "Block type of the stages without attention; conv by default.",
  ),
  flags.DEFINE_float(
    "locality_strength",
    None,
    "Initial locality of the heads, which adds query biases; 0 by default.",
  ),
  flags.DEFINE_list("group_strides", None, "Stride of each stage; 1,2,2,2 by default."),
  flags.DEFINE_integer(
    "num_classes", None, "Classes of the head, 1000 by default; 0 for no head.", 0, 10_000_000
  ),
)

# Alternatively, a configuration of TF Model Garden.
_CONFIG_FLAGS = (
  flags.DEFINE_string(
    "experiment", None, "Experiment; by default the one in the config file's header."
  ),
  flags.DEFINE_multi_string(
    "config_file", None, "YAML files: paths, or names of official configs."
  ),
  flags.DEFINE_string("params_override", None, "YAML string that overrides the config files."),
  flags.DEFINE_string("model_dir", None, "Directory of a training run, to count its model."),
)

flags.DEFINE_list(
  "input_size", None, "Size, or height,width. By default 224 or that of the config."
)
flags.DEFINE_integer("batch_size", 1, "Batch size, for the bytes.", 1, 2**31 - 1)
flags.DEFINE_string("dtype", "float32", "Dtype of activations and weights, for the bytes.")
flags.DEFINE_enum("convention", "paper", ["paper", "mac"], "Convention for counting FLOPs.")
flags.DEFINE_enum(
  "by",
  "layer",
  ["layer", "block", "group"],
  "What a row of the table summarizes; group is a stage.",
)
flags.DEFINE_bool(
  "profiler",
  True,
  "Whether to also show the FLOPs of TensorFlow's profiler, which Model Garden logs, and what it "
  "does not count. It builds the graph, which takes seconds.",
)
flags.DEFINE_list(
  "paper_tables",
  [],
  "Tables of the paper to compare: some of 1,3,4,5,6,7; or 2 alone, which is about detectors and "
  "shows FLOPs in every convention.",
)
flags.DEFINE_string(
  "plot", None, "PNG file for a plot of the paper's accuracy over the computed cost."
)
flags.DEFINE_enum("format", "table", ["table", "csv", "json", "markdown"], "Format of the report.")
flags.DEFINE_string("output", None, "File for the report; standard output by default.")
flags.DEFINE_bool("overwrite", False, "Replace --output and --plot if they exist.")


def _set_flags(holders: tuple[flags.FlagHolder, ...]) -> dict[str, Any]:
  return {holder.name: holder.value for holder in holders if holder.value is not None}


def _integers(name: str, texts: list[str]) -> tuple[int, ...]:
  try:
    return tuple(map(int, texts))
  except ValueError:
    raise UserError(f"--{name} expects integers; received {','.join(texts)}.") from None


def _input_shape(default: tuple[int, int, int]) -> tuple[int, int, int]:
  if FLAGS.input_size is None:
    return default
  size = _integers("input_size", FLAGS.input_size)
  if len(size) not in (1, 2) or not 1 <= min(size) <= max(size) <= _MAX_SIDE:
    raise UserError(
      f"--input_size expects 224, or height,width, from 1 to {_MAX_SIDE:,} pixels; received "
      f"{','.join(FLAGS.input_size)}."
    )
  return (size[0], size[-1], default[-1])


def _classifier(arguments: dict[str, Any]) -> tuple[Any, tuple[int, int, int]]:
  """Returns the model of the flags and the shape of its images."""
  from sasa_tf.analysis.paper.classifiers import IMAGENET_SHAPE, build_classifier

  for name in ("attention_groups", "group_strides"):
    if name in arguments:
      arguments[name] = _integers(name, arguments[name])
  shape = _input_shape(IMAGENET_SHAPE)
  try:
    return build_classifier(input_shape=shape, **arguments), shape
  except ValueError as error:
    raise UserError(str(error)) from error


def _experiment_in_header(config_files: list[str]) -> str:
  """Returns the experiment in the header of an official config."""
  from sasa_tf.training.experiment import find_config_file

  for file in config_files:
    if "://" in file:  # only Model Garden's reader knows remote files
      continue
    header = pathlib.Path(find_config_file(file)).read_text(encoding="utf-8", errors="replace")
    found = re.search(r"^# run: .*--experiment=(\w+)", header, re.MULTILINE)
    if found:
      return found[1]
  raise UserError(
    f"expected --experiment, or a --config_file whose header names one; received "
    f"{', '.join(config_files) or 'neither'}."
  )


def _configured_model() -> tuple[Any, tuple[int, int, int]]:
  """Returns the model of a configuration and the shape of its images."""
  from official.core import task_factory

  from sasa_tf import registry_imports  # noqa: F401
  from sasa_tf.training import experiment

  files = FLAGS.config_file or []
  name = FLAGS.experiment
  if not name and not FLAGS.model_dir:
    name = _experiment_in_header(files)
  params = experiment.load_trained_experiment(
    FLAGS.model_dir, name, files, FLAGS.params_override, mode="export"
  )
  shape = tuple(params.task.model.input_size)
  return task_factory.get_task(params.task).build_model(), _input_shape(shape)


def _reject(names: dict[str, Any], reason: str) -> None:
  if names:
    raise UserError(f"{reason}; received {', '.join(f'--{name}' for name in names)} as well.")


def main(argv: list[str]) -> None:
  """Reports on a model or on the models of the paper."""
  program.check_no_positional_args(argv)
  for flag in ("output", "plot"):
    if FLAGS[flag].value is not None:
      check_file(FLAGS[flag].value, flag, overwrite=FLAGS.overwrite)
  if FLAGS.output and FLAGS.plot and os.path.realpath(FLAGS.output) == os.path.realpath(FLAGS.plot):
    raise UserError(f"--output and --plot are both {FLAGS.output}. Choose two files.")
  arguments, config = _set_flags(_MODEL_FLAGS), _set_flags(_CONFIG_FLAGS)
  if FLAGS.paper_tables or FLAGS.plot:
    _reject({**arguments, **config}, "--paper_tables and --plot use the models of the paper")

    from sasa_tf.analysis.paper.program import profile_paper

    profile_paper(
      FLAGS.paper_tables,
      convention=FLAGS.convention,
      report_format=FLAGS.format,
      output=FLAGS.output,
      plot=FLAGS.plot,
      overwrite=FLAGS.overwrite,
    )
    return
  if config:
    _reject(arguments, "the configuration defines the model; change it with --params_override")
  model, shape = _configured_model() if config else _classifier(arguments)

  from sasa_tf.analysis import cost_model
  from sasa_tf.analysis.cost.report import CostReport
  from sasa_tf.reporting import write_report

  try:
    cost = cost_model(
      model, shape, FLAGS.convention, batch_size=FLAGS.batch_size, dtype=FLAGS.dtype
    )
  except ValueError as error:
    raise UserError(str(error)) from error
  profile = None
  # The profiler does not support detectors, whose postprocessing depends on the image.
  if FLAGS.profiler and model.inputs:
    from sasa_tf.analysis.cost.graph_profile import profile_graph

    profile = profile_graph(model, [shape])
  report = CostReport(cost, FLAGS.by, profile)
  write_report(report, FLAGS.format, FLAGS.output, overwrite=FLAGS.overwrite)


def run() -> None:
  """Console script."""
  program.run(main)


if __name__ == "__main__":
  run()
