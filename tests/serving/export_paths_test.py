"""An export replaces earlier exports and nothing else."""

import subprocess
import sys

import pytest

from sasa_tf.errors import UserError
from sasa_tf.serving.export_paths import check_export_paths


def write_export(directory):
  """Writes the files of an export, without content."""
  for name in (
    "saved_model.pb",
    "fingerprint.pb",
    "params.yaml",
    "variables/variables.index",
    "variables/variables.data-00000-of-00001",
    "assets.extra/labels.txt",
  ):
    (directory / name).parent.mkdir(parents=True, exist_ok=True)
    (directory / name).write_text("x")
  (directory / "assets").mkdir()


@pytest.fixture
def training(tmp_path):
  """A directory of a training, with an export and a LiteRT file inside."""
  run = tmp_path / "run"
  for name in ("params.yaml", "run.json", "checkpoint", "ckpt-8.index", "best_ckpt/checkpoint"):
    (run / name).parent.mkdir(parents=True, exist_ok=True)
    (run / name).write_text("x")
  write_export(run / "saved_model")
  (run / "model.tflite").write_bytes(b"\x1c\0\0\0TFL3...")
  return run


def test_earlier_exports_are_replaced(training):
  check_export_paths(
    training / "saved_model",
    training / "model.tflite",
    overwrite=True,
    inputs={"model_dir": str(training), "checkpoint_path": f"{training}/best_ckpt"},
  )


@pytest.mark.parametrize("name", ["", "best_ckpt", ".."])
@pytest.mark.parametrize("known", [False, True])
def test_training_is_never_replaced(training, name, known):
  inputs = {"model_dir": str(training)} if known else {}
  with pytest.raises(UserError, match="--model_dir" if known and name != "best_ckpt" else "holds"):
    check_export_paths(training / name, overwrite=True, inputs=inputs)


def test_other_models_and_files_are_not_replaced(training, tmp_path):
  keras = tmp_path / "keras"
  write_export(keras)
  (keras / "params.yaml").unlink()
  with pytest.raises(UserError, match=r"not a SavedModel of export_saved_model: it has no params"):
    check_export_paths(keras, overwrite=True)
  (training / "saved_model/README.md").write_text("x")
  with pytest.raises(UserError, match=r"it also holds README\.md"):
    check_export_paths(training / "saved_model", overwrite=True)
  with pytest.raises(UserError, match="checkpoint exists and is not a LiteRT"):
    check_export_paths(tmp_path / "new", training / "checkpoint", overwrite=True)
  with pytest.raises(UserError, match="run is a directory; expected a file"):
    check_export_paths(tmp_path / "new", training, overwrite=True)


@pytest.mark.parametrize("litert", ["new/m.tflite", "new", "a.tflite"])
def test_outputs_must_not_overlap(tmp_path, litert):
  export_dir = "a.tflite/b" if litert == "a.tflite" else "new"
  with pytest.raises(UserError, match=r"overlap.* for example .*\.tflite"):
    check_export_paths(tmp_path / export_dir, tmp_path / litert, overwrite=True)


def test_program_rejects_paths_before_it_loads_anything(training):
  """Without the import of TensorFlow the program takes much less than ten seconds."""
  before = sorted(training.rglob("*"))
  for export_dir, message in (
    (training, f"--export_dir={training} is --model_dir ({training})"),
    ("gs://bucket/model", "expected a local path"),
    (training / "params.yaml/x", "params.yaml is a file; expected a directory"),
  ):
    done = subprocess.run(
      [
        *(sys.executable, "-m", "sasa_tf.bin.export_saved_model", "--overwrite"),
        *(f"--model_dir={training}", f"--export_dir={export_dir}"),
      ],
      capture_output=True,
      text=True,
      timeout=10,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: ") and message in done.stderr, done.stderr
    assert len(done.stderr.splitlines()) == 1
  assert sorted(training.rglob("*")) == before
