"""Trains and evaluates an experiment: TF Model Garden's train program with sasa_tf registered.

python -m sasa_tf.bin.train --experiment=sasa_resnet_digits --mode=train_and_eval \
    --model_dir=runs/digits
"""

from __future__ import annotations

import os

from absl import flags

from sasa_tf.bin import attention_summaries_flag, program
from sasa_tf.errors import UserError

program.require("official", "tf_keras")

from official.common import flags as model_garden_flags

FLAGS = flags.FLAGS

model_garden_flags.define_flags()
flags.DEFINE_bool("enable_async_checkpointing", True, "Write checkpoints asynchronously.")
flags.DEFINE_integer(
  "num_logical_cpus",
  0,
  "Number of replicas on the CPU for a dry run of distribution_strategy=mirrored; 0 for none.",
  lower_bound=0,
)
flags.DEFINE_enum(
  "on_nonfinite",
  "stop",
  ["stop", "skip"],
  "What to do when a loss or a gradient is not finite: end the run, or skip the step.",
)
flags.DEFINE_enum(
  "all_reduce",
  "auto",
  ["auto", "in_program", "between_programs"],
  "Where several replicas sum their gradients with runtime.enable_xla: in_program, within a single "
  "compiled program, by NCCL; between_programs, between two, by TensorFlow; auto, in_program for "
  "the GPUs of one process where it is supported.",
)
flags.DEFINE_integer(
  "max_corrupt_records",
  0,
  "Maximum number of corrupt records of a dataset to skip: records that cannot be read, or have no "
  "image or label. By default, the first one ends the run. Reads all TFRecord files once before "
  "the run.",
  lower_bound=0,
)
flags.DEFINE_bool("deterministic", False, "Make the run bitwise reproducible, which is slower.")
flags.DEFINE_integer(
  "seed",
  None,
  "Seed of weights, data order and augmentation; by default random, and 0 with --deterministic. "
  "Without --deterministic, runs of the same seed are not bitwise equal.",
  lower_bound=0,
  upper_bound=2**32 - 1,
)
flags.DEFINE_bool(
  "force",
  False,
  "Take over the lock of --model_dir from a training on another host that has ended, without "
  "waiting for a sign of it. On this host, locks of ended processes are taken over anyway.",
)
flags.DEFINE_string(
  "attention_summaries",
  None,
  "Write entropy, distance and padding share of each attention layer, and images of its windows, "
  "to the TensorBoard log: a number of steps between two summaries, or auto for at most 1 % of the "
  "time. Default: none.",
)
# What Model Garden defines and its own train program reads: what to do instead.
_UNUSED_FLAGS = {
  "tpu": "Set --params_override=runtime.distribution_strategy=tpu,runtime.tpu=ADDRESS",
  "tpu_platform": "Remove it",
  "tf_data_service": "Set --params_override=task.train_data.enable_tf_data_service=true,"
  "task.train_data.tf_data_service_address=ADDRESS",
  "tfhub_handle": "Export the model with `python -m sasa_tf.bin.export`",
  "tflex_output_uri": "Remove it",
}

flags.mark_flags_as_required(["experiment", "mode", "model_dir"])


def main(argv: list[str]) -> None:
  """Runs the experiment that the flags configure."""
  program.check_no_positional_args(argv)
  if not FLAGS.model_dir.strip():
    raise UserError("--model_dir is empty. Set the directory for checkpoints and logs.")

  _check_model_garden_flags()

  if FLAGS.num_logical_cpus or os.environ.get("TF_CONFIG"):
    # At the end of an evaluation, a replica may get an empty batch. The oneDNN convolution of
    # TensorFlow 2.20 returns the wrong number of channels for it. Must be set before TensorFlow is
    # imported.
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")

  from sasa_tf.training import strategy

  if FLAGS.num_logical_cpus:
    strategy.create_logical_cpus(FLAGS.num_logical_cpus)

  from sasa_tf import registry_imports  # noqa: F401
  from sasa_tf.training import determinism, experiment, run

  _parse_gin()
  params = experiment.load_experiment(
    FLAGS.experiment,
    FLAGS.config_file or (),
    FLAGS.params_override,
    mode=FLAGS.mode,
    num_logical_cpus=FLAGS.num_logical_cpus,
  )
  if FLAGS.deterministic:
    params = determinism.enable_determinism(params, FLAGS.seed or 0, FLAGS.model_dir)
  elif FLAGS.seed is not None:
    params = determinism.set_seed(params, FLAGS.seed, FLAGS.model_dir)
  train_actions = attention_summaries_flag.train_actions(
    FLAGS.attention_summaries, params, FLAGS.mode
  )
  run.run_experiment(
    FLAGS.experiment,
    params,
    mode=FLAGS.mode,
    model_dir=FLAGS.model_dir,
    num_logical_cpus=FLAGS.num_logical_cpus,
    enable_async_checkpointing=FLAGS.enable_async_checkpointing,
    on_nonfinite=FLAGS.on_nonfinite,
    all_reduce=FLAGS.all_reduce,
    max_corrupt_records=FLAGS.max_corrupt_records,
    force=FLAGS.force,
    train_actions=train_actions,
  )


def _check_model_garden_flags() -> None:
  """Raises `UserError` for flags of Model Garden's train program that this one does not use."""
  for flag, instead in _UNUSED_FLAGS.items():
    if FLAGS[flag].value:
      raise UserError(f"--{flag} is a flag of Model Garden that is not used here. {instead}.")


def _parse_gin() -> None:
  """Applies --gin_file and --gin_params. Raises `UserError` if gin rejects them."""
  import gin

  for file in FLAGS.gin_file or ():
    if os.path.exists(file) and not os.path.isfile(file):
      raise UserError(f"--gin_file={file} is a directory, a pipe or a device; expected a file.")
  try:
    gin.parse_config_files_and_bindings(FLAGS.gin_file, FLAGS.gin_params)
  except (OSError, SyntaxError, ValueError, TypeError, ImportError, AttributeError) as error:
    problem = str(error).strip().splitlines() or [type(error).__name__]
    raise UserError(
      f"--gin_file={FLAGS.gin_file or []}, --gin_params={FLAGS.gin_params or []}: gin cannot apply "
      f"them: {problem[0]} Correct them, or configure the experiment with --params_override."
    ) from error


def run() -> None:
  """Console script."""
  program.run(main)


if __name__ == "__main__":
  run()
