r"""Measures an experiment's input pipeline and training step and reports the bottleneck.

  python -m sasa_tf.bin.benchmark_input --experiment=sasa_resnet_imagenet \
    --params_override=task.train_data.global_batch_size=128

It uses the experiment's files, augmentation, batch size, model and optimizer, and writes nothing.
--input_only skips the model.
"""

from __future__ import annotations

from absl import flags

from sasa_tf.bin import program

program.require("official", "tf_keras")

FLAGS = flags.FLAGS

flags.DEFINE_string("experiment", None, "Experiment to measure.", required=True)
flags.DEFINE_multi_string("config_file", None, "YAML files that override the experiment.")
flags.DEFINE_string("params_override", None, "YAML string that overrides the config files.")
flags.DEFINE_float("seconds", 10.0, "Minimum duration of each measurement.", lower_bound=0)
flags.DEFINE_integer(
  "steps_per_loop", 10, "Training steps between two readings of the clock.", 1, 2**31 - 1
)
flags.DEFINE_bool("input_only", False, "Measure only the input pipeline.")


def main(argv: list[str]) -> None:
  """Measures the experiment."""
  program.check_no_positional_args(argv)

  from sasa_tf import registry_imports  # noqa: F401
  from sasa_tf.benchmarks import input_pipeline
  from sasa_tf.training import experiment

  params = experiment.load_experiment(
    FLAGS.experiment, FLAGS.config_file or (), FLAGS.params_override
  )
  if FLAGS.input_only:
    print(input_pipeline.measure_input(params, seconds=FLAGS.seconds))
  else:
    print(
      input_pipeline.measure(params, seconds=FLAGS.seconds, steps_per_loop=FLAGS.steps_per_loop)
    )


def run() -> None:
  """Console script."""
  program.run(main)


if __name__ == "__main__":
  run()
