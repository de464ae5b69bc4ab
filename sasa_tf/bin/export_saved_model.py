"""Exports a trained model as a SavedModel that takes pictures and returns probabilities.

  python -m sasa_tf.bin.export_saved_model --model_dir=runs/digits \
    --export_dir=runs/digits/saved_model

Experiment and configuration are those that the training left in --model_dir; name --experiment
(with --config_file and --params_override) to give others.
"""

from __future__ import annotations

from absl import flags

from sasa_tf.bin import program

FLAGS = flags.FLAGS

flags.DEFINE_string("model_dir", None, "Directory of the training.")
flags.DEFINE_string("export_dir", None, "SavedModel directory to make.", required=True)
flags.DEFINE_string(
  "checkpoint_path", None, "Checkpoint or directory of one; --model_dir's best by default."
)
flags.DEFINE_string("experiment", None, "Experiment; that of --model_dir by default.")
flags.DEFINE_multi_string("config_file", None, "YAML files that override the experiment.")
flags.DEFINE_string("params_override", None, "YAML string that overrides further.")
flags.DEFINE_string(
  "labels", None, "File of class names, a line each; that of the training's data by default."
)
flags.DEFINE_enum(
  "input_type",
  "image_tensor",
  ["image_tensor", "image_bytes", "tf_example"],
  "What serving_default takes; the others are signatures of their own.",
)
flags.DEFINE_integer("batch_size", None, "Fixed batch size; any by default.", lower_bound=1)
flags.DEFINE_list("input_image_size", None, "height,width; the training's by default.")
flags.DEFINE_bool("overwrite", False, "Replace --export_dir.")


def main(argv: list[str]) -> None:
  """Exports the model of the flags."""
  program.refuse_positional(argv)

  from sasa_tf import registry_imports  # noqa: F401
  from sasa_tf.data.labels import read_labels
  from sasa_tf.serving.export import export_classification
  from sasa_tf.training import checks, experiment, report

  params = experiment.load_trained_experiment(
    FLAGS.model_dir, FLAGS.experiment, FLAGS.config_file or (), FLAGS.params_override
  )
  checkpoint = report.find_checkpoint(FLAGS.checkpoint_path, FLAGS.model_dir, params)
  labels = FLAGS.labels or checks.labels_beside(params.task.train_data.input_path)
  export_classification(
    params,
    checkpoint_path=checkpoint,
    export_dir=FLAGS.export_dir,
    class_names=read_labels(labels) if labels else None,
    input_type=FLAGS.input_type,
    batch_size=FLAGS.batch_size,
    input_image_size=[int(size) for size in FLAGS.input_image_size or ()],
    overwrite=FLAGS.overwrite,
  )
  print(
    f"exported {checkpoint}\nto       {FLAGS.export_dir}"
    f"\nnext     python -m sasa_tf.bin.predict --saved_model={FLAGS.export_dir} PICTURE..."
  )


def run() -> None:
  """Console script."""
  program.run(main)


if __name__ == "__main__":
  run()
