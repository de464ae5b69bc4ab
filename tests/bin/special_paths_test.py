"""Training, resuming, export and prediction where directories are named like patterns."""

import pytest
import tensorflow as tf

from sasa_tf.errors import UserError
from sasa_tf.serving import export
from sasa_tf.serving.clients import client
from sasa_tf.serving.clients.encoded_image_model import EncodedImageModel
from sasa_tf.serving.formats.format import SavedModelOptions
from sasa_tf.training import results
from sasa_tf.training.run import run_experiment
from tests.training import tiny_run


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  return tmp_path_factory.mktemp("runs")


def run(folder, model_dir, steps, mode="train_and_eval", **others):
  return run_experiment(
    tiny_run.EXPERIMENT,
    params_of(folder, steps, **others),
    mode=mode,
    model_dir=str(model_dir),
  )


def params_of(folder, steps=8, **others):
  """Returns the configuration of a run; the data is in a directory with a comma and brackets."""
  params = tiny_run.params("unused", steps=steps, **{"trainer.max_to_keep": 2, **others})
  data = folder / "a,b set[1]*"
  return params.replace(
    task=params.task.replace(
      train_data=params.task.train_data.replace(input_path=f"{data}/train-*"),
      validation_data=params.task.validation_data.replace(input_path=f"{data}/validation-*"),
    )
  )


@pytest.fixture(scope="module")
def trained(folder):
  """Trains and resumes in a directory that, as a pattern, matches another one."""
  tiny_run.write_data(folder / "a,b set[1]*")
  other = folder / "exp l v11"
  for step in (4, 8):
    tf.train.Checkpoint(x=tf.Variable(1.0)).write(f"{other}/ckpt-{step}")
  model_dir = folder / "exp [lr=1e-3] v1*"
  run(folder, model_dir, steps=8)
  run(folder, model_dir, steps=16)
  assert tiny_run.steps_of(other) == [4, 8]
  return model_dir


def test_old_checkpoints_are_removed_and_messages_name_the_directory(trained, capfd, folder):
  assert tiny_run.steps_of(trained) == [12, 16]
  run(folder, trained, steps=16)
  printed = capfd.readouterr()
  assert f"last checkpoint       {trained}/ckpt-16\n" in printed.out
  assert f"--logdir '{trained}'" in printed.out and f"'--model_dir={trained}'" in printed.out
  assert f"{trained} already holds step 16 of 16" in printed.err
  assert "sasa_tf_paths" not in printed.out + printed.err
  assert "sasa_tf_paths" not in (trained / "params.yaml").read_text()


def test_training_starts_from_a_checkpoint_there(trained, folder, capfd):
  start = {"task.init_checkpoint": "", "trainer.train_steps": 2}
  params = params_of(folder, **start)
  task = params.task.replace(init_checkpoint=f"{trained}/best_ckpt")
  params = params.replace(task=task)
  arguments = {"mode": "train", "model_dir": str(folder / "next")}
  run_experiment(tiny_run.EXPERIMENT, params, **arguments)
  more_classes = params.replace(task=task.replace(model=task.model.replace(num_classes=12)))
  message = (
    r"other classes .*num_classes is 10 in the checkpoint, 12 .*\.init_checkpoint_modules=ba"
  )
  with pytest.raises(UserError, match=message):
    run_experiment(tiny_run.EXPERIMENT, more_classes, **arguments | {"model_dir": f"{folder}/new"})
  assert not (folder / "new").exists()


def test_export_and_prediction(trained, folder):
  params = params_of(folder)
  directory = trained / "saved [model]"
  export.export_model(
    params,
    weights=results.find_checkpoint(None, str(trained), params),
    outputs={"saved_model": directory},
    class_names=None,
    saved_model=SavedModelOptions("image_bytes", signatures=("image_bytes",)),  # faster
  )
  image = folder / "[image]*.png"
  image.write_bytes(tf.io.encode_png(tf.zeros([8, 8, 3], tf.uint8)).numpy())
  model = EncodedImageModel.from_saved_model(str(directory))
  lines = list(client.predict_all(model, [str(image)]))
  assert lines[0] == str(image) and len(lines) == 4
