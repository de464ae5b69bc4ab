"""Recovery from preemption, corrupt checkpoints and corrupt records, in a single process."""

import os
import pathlib
import shutil
import signal

import pytest
import tensorflow as tf

from sasa_tf.errors import PreemptedError, UserError
from sasa_tf.training import progress, run
from tests.training import tiny_run


@pytest.fixture(scope="module")
def data(tmp_path_factory):
  return tiny_run.write_data(tmp_path_factory.mktemp("digits"))


def train(data, model_dir, mode="train", **arguments):
  return run.run_experiment(
    tiny_run.EXPERIMENT, tiny_run.params(data), mode=mode, model_dir=str(model_dir), **arguments
  )


def copy_with_changes(data, directory, change):
  """Copies the data, with `change` applied to the records of the last training file."""
  shutil.copytree(data, directory)
  file = sorted(directory.glob("train-*"))[-1]
  changed = change(list(tf.data.TFRecordDataset(str(file)).as_numpy_iterator()))
  with tf.io.TFRecordWriter(str(file)) as writer:
    for record in changed:
      writer.write(record)
  return file


def without_label(record):
  example = tf.train.Example.FromString(record)
  del example.features.feature["image/class/label"]
  return example.SerializeToString()


def with_text(record):
  example = tf.train.Example.FromString(record)
  example.features.feature["image/encoded"].bytes_list.value[0] = b"<html>"
  return example.SerializeToString()


@pytest.mark.parametrize(
  ("corrupt", "problem"),
  [
    # TensorFlow cannot create its own error for a record that is no text.
    (lambda record: b"\xff\xfe" * 9, r"not an example with the expected features: .*\\xff"),
    pytest.param(with_text, "start with b'<html>'", marks=pytest.mark.slow),
    pytest.param(without_label, "received 0", marks=pytest.mark.slow),
  ],
)
def test_error_names_a_corrupt_record(data, tmp_path, corrupt, problem):
  file = copy_with_changes(
    data, tmp_path / "data", lambda records: [*records[:9], *map(corrupt, records[9:])]
  )
  with pytest.raises(UserError, match=rf"{file}, record 9 .*{problem}"):
    train(tmp_path / "data", tmp_path / "run", mode="train")


@pytest.mark.slow
def test_truncated_file_ends_the_run_or_is_skipped(data, tmp_path, capsys):
  file = copy_with_changes(
    data, tmp_path / "data", lambda records: [with_text(records[0]), *records[1:]]
  )
  os.truncate(file, file.stat().st_size - 5)
  with pytest.raises(UserError, match=rf"{file}, record 0 .*max_corrupt_records"):
    train(tmp_path / "data", tmp_path / "run", mode="train")
  train(tmp_path / "data", tmp_path / "run", mode="train", max_corrupt_records=2)
  assert capsys.readouterr().err.count("warning: skipped ") == 2
  assert tiny_run.steps_of(tmp_path / "run")[-1] == 12


def test_resume_after_sigterm_and_a_corrupt_checkpoint(data, tmp_path, monkeypatch, capsys):
  on_train, on_evaluate = progress.TrainingProgress.on_train, progress.TrainingProgress.on_evaluate
  before = signal.getsignal(signal.SIGTERM)

  def stop_at_step_six(self, output):
    on_train(self, output)
    if self.current_step() == 6:
      os.kill(os.getpid(), signal.SIGTERM)

  monkeypatch.setattr(progress.TrainingProgress, "on_train", stop_at_step_six)
  with pytest.raises(PreemptedError, match="after step 6, which is saved in"):
    train(data, tmp_path)
  assert tiny_run.steps_of(tmp_path) == [2, 6]
  assert signal.getsignal(signal.SIGTERM) == before
  monkeypatch.setattr(progress.TrainingProgress, "on_train", on_train)

  # The last checkpoint is corrupt: the run resumes from the one before it, with a warning.
  os.truncate(tmp_path / "ckpt-6.data-00000-of-00001", 1000)
  first_steps = []
  begin = progress.TrainingProgress.begin

  def recording_begin(self):
    first_steps.append(self.current_step())
    begin(self)

  monkeypatch.setattr(progress.TrainingProgress, "begin", recording_begin)
  train(data, tmp_path, mode="train_and_eval")
  assert first_steps == [2]
  assert f"{tmp_path}/ckpt-6 is corrupt and not used" in capsys.readouterr().err
  assert tf.train.latest_checkpoint(str(tmp_path)) == f"{tmp_path}/ckpt-12"

  # An evaluation uses the latest valid checkpoint too, and writes nothing.
  os.truncate(tmp_path / "ckpt-12.data-00000-of-00001", 1000)
  state = pathlib.Path(tmp_path, "checkpoint").read_text()
  steps = []

  def recording_on_evaluate(self, output):
    steps.append(self.current_step())
    on_evaluate(self, output)

  monkeypatch.setattr(progress.TrainingProgress, "on_evaluate", recording_on_evaluate)
  assert "accuracy" in train(data, tmp_path, mode="eval")
  assert steps == [10]
  assert pathlib.Path(tmp_path, "checkpoint").read_text() == state
