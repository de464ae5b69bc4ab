"""Prints what a model costs, by layer, or the paper's tables beside ours.

  python -m sasa_tf.bin.profile_model --model_id=50 --stem=attention
  python -m sasa_tf.bin.profile_model --config_file=imagenet/sasa_resnet50.yaml --by=block
  python -m sasa_tf.bin.profile_model --paper_tables=1,3,4,5,6,7 --plot=paper.png
  python -m sasa_tf.bin.profile_model --paper_tables=2

Parameters, FLOPs and bytes are counted in closed form: nothing runs, and the implementation of
attention does not matter. FLOPs come in two conventions. `mac` counts 2 a multiply-add of
convolutions, projections, q.k, q.r and a.v; `paper` was fitted to the rows of the paper's tables.
"""

from __future__ import annotations

import pathlib
import re
from typing import Any

from absl import flags

from sasa_tf.bin import program
from sasa_tf.errors import UserError

FLAGS = flags.FLAGS

# Arguments of SASAResNet, its defaults where they are not given.
_MODEL_FLAGS = (
  flags.DEFINE_integer("model_id", None, "Layers of the ResNet: 26, 38 or 50 (the default)."),
  flags.DEFINE_enum("stem", None, ["conv", "conv_small", "attention"], "Stem; conv by default."),
  flags.DEFINE_list(
    "attention_groups", None, "Groups of attention, all by default; --attention_groups= for none."
  ),
  flags.DEFINE_float("width_multiplier", None, "Scales all channels (paper Fig. 5)."),
  flags.DEFINE_integer("kernel_size", None, "Window of the attention, odd; 7 by default."),
  flags.DEFINE_integer("num_heads", None, "Heads of the attention; 8 by default."),
  flags.DEFINE_enum("positions", None, ["relative", "absolute", "none"], "Relative by default."),
  flags.DEFINE_bool("content", None, "Whether logits have q.k; --nocontent for q.r alone."),
  flags.DEFINE_string("implementation", None, "Of the attention, for the profiler alone."),
  flags.DEFINE_enum(
    "stem_variant", None, ["mixture", "standalone", "conv_values"], "Values of stem=attention."
  ),
  flags.DEFINE_integer("stem_num_heads", None, "Heads of stem=attention; 4 by default."),
  flags.DEFINE_integer("stem_num_mixtures", None, "Value matrices of stem=attention, 8."),
  flags.DEFINE_enum(
    "baseline",
    None,
    ["conv", "squeeze_excitation", "non_local", "attention_augmented"],
    "What groups without attention are; conv by default.",
  ),
  flags.DEFINE_list("group_strides", None, "Stride of each group; 1,2,2,2 by default."),
  flags.DEFINE_integer("num_classes", None, "Of the classifier, 1000 by default; 0 for none."),
)

# A configuration of TF Model Garden instead.
_CONFIG_FLAGS = (
  flags.DEFINE_string("experiment", None, "Experiment; that in the config file's header else."),
  flags.DEFINE_multi_string("config_file", None, "YAML files, your own or official configs."),
  flags.DEFINE_string("params_override", None, "YAML string that overrides further."),
  flags.DEFINE_string("model_dir", None, "Directory of a training, whose model is meant."),
)

flags.DEFINE_list("input_size", None, "224, or height,width; the configuration's by default.")
flags.DEFINE_integer("batch_size", 1, "Images of a batch, for the bytes.", lower_bound=1)
flags.DEFINE_string("dtype", "float32", "Of activations and weights, for the bytes.")
flags.DEFINE_enum("convention", "paper", ["paper", "mac"], "What counts as a FLOP.")
flags.DEFINE_enum("by", "layer", ["layer", "block", "group"], "What a line of the table is about.")
flags.DEFINE_bool(
  "profiler",
  True,
  "Whether to show the figure of TensorFlow's profiler too, which Model Garden logs, and what it "
  "does not count. Builds the graph, which takes seconds; --noprofiler does without.",
)
flags.DEFINE_list(
  "paper_tables",
  [],
  "Of 1,3,4,5,6,7: compare the paper's rows with ours; 2, of detectors, by itself, with FLOPs in "
  "every convention.",
)
flags.DEFINE_string("plot", None, "PNG file for the paper's accuracy against our costs.")
flags.DEFINE_enum("format", "table", ["table", "csv", "json", "markdown"], "Of the report.")
flags.DEFINE_string("output", None, "File for the report; printed by default.")


def _given(holders: tuple[flags.FlagHolder, ...]) -> dict[str, Any]:
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
  if len(size) not in (1, 2) or min(size) < 1:
    raise UserError(f"--input_size expects 224, or height,width; received {FLAGS.input_size}.")
  return (size[0], size[-1], default[-1])


def _classifier(arguments: dict[str, Any]) -> tuple[Any, tuple[int, int, int]]:
  """Returns the model that the flags describe, and the shape of its images."""
  from sasa_tf.analysis.paper.classifiers import IMAGENET_SHAPE, build_classifier

  for name in ("attention_groups", "group_strides"):
    if name in arguments:
      arguments[name] = _integers(name, arguments[name])
  shape = _input_shape(IMAGENET_SHAPE)
  try:
    return build_classifier(input_shape=shape, **arguments), shape
  except ValueError as error:
    raise UserError(str(error)) from error


def _experiment_of(config_files: list[str]) -> str:
  """Returns the experiment that the header of an official config names."""
  from sasa_tf.training.experiment import find_config_file

  for file in config_files:
    header = pathlib.Path(find_config_file(file)).read_text()
    found = re.search(r"^# run: .*--experiment=(\w+)", header, re.MULTILINE)
    if found:
      return found[1]
  raise UserError(
    f"expected --experiment, or a --config_file whose header names one; received "
    f"{', '.join(config_files) or 'neither'}."
  )


def _configured() -> tuple[Any, tuple[int, int, int]]:
  """Returns the model that a configuration describes, and the shape of its images."""
  from official.core import task_factory

  from sasa_tf import registry_imports  # noqa: F401
  from sasa_tf.training import experiment

  files = FLAGS.config_file or []
  name = FLAGS.experiment
  if not name and not FLAGS.model_dir:
    name = _experiment_of(files)
  params = experiment.load_trained_experiment(FLAGS.model_dir, name, files, FLAGS.params_override)
  shape = tuple(params.task.model.input_size)
  return task_factory.get_task(params.task).build_model(), _input_shape(shape)


def _refuse(names: dict[str, Any], reason: str) -> None:
  if names:
    raise UserError(f"{reason}; received {', '.join(f'--{name}' for name in names)} as well.")


def main(argv: list[str]) -> None:
  """Profiles the model, or the models of the paper."""
  program.check_no_positional_args(argv)
  arguments, config = _given(_MODEL_FLAGS), _given(_CONFIG_FLAGS)
  if FLAGS.paper_tables or FLAGS.plot:
    _refuse({**arguments, **config}, "--paper_tables and --plot choose the models themselves")

    from sasa_tf.analysis.paper.program import profile_paper

    profile_paper(
      FLAGS.paper_tables,
      convention=FLAGS.convention,
      form=FLAGS.format,
      output=FLAGS.output,
      plot=FLAGS.plot,
    )
    return
  if config:
    _refuse(arguments, "a configuration describes the model; override it by --params_override")
  model, shape = _configured() if config else _classifier(arguments)

  from sasa_tf.analysis import cost_model
  from sasa_tf.analysis.cost.report import CostReport
  from sasa_tf.analysis.report_formats import write_report

  try:
    cost = cost_model(
      model, shape, FLAGS.convention, batch_size=FLAGS.batch_size, dtype=FLAGS.dtype
    )
  except ValueError as error:
    raise UserError(str(error)) from error
  profile = None
  # The profiler does not know detectors: what they do after their last layer depends on the image.
  if FLAGS.profiler and model.inputs:
    from sasa_tf.analysis.cost.graph_profile import profile_graph

    profile = profile_graph(model, [shape])
  write_report(CostReport(cost, FLAGS.by, profile), FLAGS.format, FLAGS.output)


def run() -> None:
  """Console script."""
  program.run(main)


if __name__ == "__main__":
  run()
