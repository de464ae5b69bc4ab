"""A training that takes seconds: scikit-learn's digits and a narrow network."""

import pathlib

from sasa_tf import registry_imports  # noqa: F401
from sasa_tf.data.classification import digits
from sasa_tf.training import experiment

EXPERIMENT = "sasa_resnet_digits"


def write_data(directory):
  """Writes the TFRecords of the digits; returns the directory as a string."""
  digits.convert(output=str(directory), num_preview_images=0)
  return str(directory)


def overrides(data, steps=12, loop=2, interval=4, **others):
  """Returns the --params_override of a run, with keys such as "trainer.train_steps"."""
  values = {
    "task.train_data.input_path": f"{data}/train-*",
    "task.validation_data.input_path": f"{data}/validation-*",
    "task.train_data.global_batch_size": 16,
    "trainer.train_steps": steps,
    "trainer.steps_per_loop": loop,
    "trainer.summary_interval": loop,
    "trainer.checkpoint_interval": interval,
    "trainer.validation_interval": steps,
    "trainer.validation_steps": 2,
    **others,
  }
  backbone = {
    "model_id": 26,
    "width_multiplier": 0.0625,
    "attention_groups": [4],
    "num_heads": 2,
  }
  values |= {f"task.model.backbone.sasa_resnet.{key}": value for key, value in backbone.items()}
  return ",".join(f"{key}={value}".replace(" ", "") for key, value in values.items())


def params(data, **arguments):
  """Returns the configuration of the run; for arguments see `overrides`."""
  return experiment.load_experiment(EXPERIMENT, params_override=overrides(data, **arguments))


def steps_of(model_dir):
  """Returns the steps of the checkpoints in a directory."""
  files = pathlib.Path(model_dir).glob("ckpt-*.index")
  return sorted(int(file.stem.split("-")[1]) for file in files)
