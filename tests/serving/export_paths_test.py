"""An export replaces earlier exports and nothing else."""

import dataclasses
import importlib.util
import subprocess
import sys

import pytest

from sasa_tf.errors import UserError
from sasa_tf.serving.export_paths import check_card, check_export_paths, next_version, paths_in
from sasa_tf.serving.formats import registry
from sasa_tf.serving.formats.registry import find_formats


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
    {"saved_model": training / "saved_model", "litert": training / "model.tflite"},
    overwrite=True,
    inputs={"model_dir": str(training), "checkpoint_path": f"{training}/best_ckpt"},
  )


@pytest.mark.parametrize("name", ["", "best_ckpt", ".."])
@pytest.mark.parametrize("known", [False, True])
def test_training_is_never_replaced(training, name, known):
  inputs = {"model_dir": str(training)} if known else {}
  with pytest.raises(UserError, match="--model_dir" if known and name != "best_ckpt" else "holds"):
    check_export_paths({"saved_model": training / name}, overwrite=True, inputs=inputs)


def test_other_models_are_not_replaced(training, tmp_path):
  keras = tmp_path / "keras"
  write_export(keras)
  (keras / "params.yaml").unlink()
  with pytest.raises(UserError, match=r"not an exported SavedModel of sasa_tf: it has no par"):
    check_export_paths({"saved_model": keras}, overwrite=True)
  (training / "saved_model/README.md").write_text("x")
  with pytest.raises(UserError, match=r"it also holds README\.md"):
    check_export_paths({"saved_model": training / "saved_model"}, overwrite=True)


@pytest.mark.parametrize("name", ["litert", "keras"])
def test_other_files_are_not_replaced(name, training):
  with pytest.raises(UserError, match="checkpoint exists and is not a file of the format"):
    check_export_paths({name: training / "checkpoint"}, overwrite=True)
  with pytest.raises(UserError, match="run is a directory; expected a file"):
    check_export_paths({name: training}, overwrite=True)


@pytest.mark.parametrize("litert", ["new/m.tflite", "new", "a.tflite"])
def test_outputs_must_not_overlap(tmp_path, litert):
  export_dir = "a.tflite/b" if litert == "a.tflite" else "new"
  with pytest.raises(UserError, match="overlap"):
    check_export_paths({"saved_model": tmp_path / export_dir, "litert": tmp_path / litert})


def test_formats_have_fixed_names_in_the_output_directory(tmp_path):
  names = {"saved_model": "saved_model", "litert": "model.tflite", "keras": "model.keras"}
  found = paths_in(tmp_path / "new", find_formats(["keras", "litert", "saved_model", "keras"]))
  assert found == {name: tmp_path / "new" / file for name, file in names.items()}
  (tmp_path / "file").write_text("x")
  with pytest.raises(UserError, match=r"--output_dir=.*file is a file; expected a directory"):
    paths_in(tmp_path / "file", find_formats(["keras"]))


def test_versions_have_the_next_free_number(training, tmp_path):
  assert next_version(tmp_path / "models") == tmp_path / "models/1"
  for name in ("1", "9", "10", "README", "v11", ".incomplete.12"):
    (tmp_path / "models" / name).mkdir(parents=True)
  assert next_version(tmp_path / "models") == tmp_path / "models/11"
  with pytest.raises(UserError, match="saved_model is a SavedModel, not a directory of versions"):
    next_version(training / "saved_model")


def test_model_card_replaces_only_a_card(tmp_path):
  assert check_card(tmp_path) == tmp_path / "model_card.md"
  (tmp_path / "model_card.md").write_text("---\nlibrary_name: sasa_tf\npipeline_tag: x\n")
  check_card(tmp_path)
  (tmp_path / "model_card.md").write_text("# Mine\n")
  with pytest.raises(UserError, match=r"exists and is not a model card of sasa_tf"):
    check_card(tmp_path)


def test_quantization_names_the_formats_that_support_it():
  assert [each.name for each in find_formats(["litert"], "int8")] == ["litert"]
  with pytest.raises(UserError, match=r"--quantize=int8 .* --format=saved_model,keras; .* litert"):
    find_formats(["saved_model", "litert", "keras"], "int8")


def test_unknown_format_is_rejected():
  with pytest.raises(UserError, match=r"--format=savedmodel: no such .* mean 'saved_model'\?"):
    find_formats(["litert", "savedmodel"])
  with pytest.raises(UserError, match="--format is empty"):
    find_formats([])


def test_format_whose_package_is_missing_is_rejected(monkeypatch):
  needs_rich = dataclasses.replace(registry.FORMATS["litert"], requires=("rich",))
  monkeypatch.setitem(registry.FORMATS, "litert", needs_rich)
  monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
  with pytest.raises(UserError, match=r"^--format=litert needs rich\. Install .*\[report\]'$"):
    find_formats(["saved_model", "litert"])


def test_program_rejects_paths_before_it_loads_anything(training):
  """Without the import of TensorFlow the program takes much less than ten seconds."""
  before = sorted(training.rglob("*"))
  for program, path, message in (
    ("export_saved_model --export_dir", training, f"--export_dir={training} is --model_dir"),
    ("export_saved_model --export_dir", "gs://bucket/model", "expected a local path"),
    ("export --output_dir", training / "params.yaml/x", "params.yaml is a file; expected a dir"),
    ("export --format=pb --output_dir", training, "--format=pb: no such format"),
    ("export --signatures=foo --output_dir", training, "--signatures must be some of image_te"),
    ("export --batch_size=99999999 --output_dir", training, "flag --batch_size=99999999"),
    ("export --format=litert --cpu_kernels --output_dir", training / "x", "--cpu_kernels is an op"),
  ):
    done = subprocess.run(
      [
        *(sys.executable, "-m", *f"sasa_tf.bin.{program}={path}".split()),
        *(f"--model_dir={training}", "--overwrite"),
      ],
      capture_output=True,
      text=True,
      timeout=10,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: ") and message in done.stderr, done.stderr
    assert len(done.stderr.splitlines()) == 1
  assert sorted(training.rglob("*")) == before
