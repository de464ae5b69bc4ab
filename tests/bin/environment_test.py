"""Programs in unusual environments: another Keras backend, and Python without assertions."""

import ast
import json
import os
import pathlib
import subprocess
import sys

import pytest

from tests.import_rules import sources

ARGUMENTS = {
  "train": ["--experiment=sasa_resnet_digits", "--mode=train", "--model_dir=unused"],
  "export_saved_model": ["--model_dir=unused", "--export_dir=unused/saved_model"],
  "predict": ["--saved_model=unused", "image.png"],
  "attention_maps": ["--saved_model=unused", "--output=unused.html", "image.png"],
  "profile_model": ["--model_id=26"],
  "benchmark_input": ["--experiment=sasa_resnet_digits"],
  "scaling": [],
}


def run(*arguments, **environment):
  return subprocess.run(
    [sys.executable, *arguments],
    capture_output=True,
    text=True,
    timeout=120,
    env={**os.environ, **environment},
  )


@pytest.mark.parametrize("name", ARGUMENTS)
def test_programs_report_another_keras_backend(name):
  done = run("-m", f"sasa_tf.bin.{name}", *ARGUMENTS[name], KERAS_BACKEND="jax")
  *_, last = done.stderr.splitlines()
  assert done.returncode == 2, done.stderr
  assert last.startswith("error: ") and "Traceback" not in done.stderr
  assert "needs Keras 3 with the TensorFlow backend; received 'jax' from the environment" in last
  assert "KERAS_BACKEND=tensorflow" in last


@pytest.mark.parametrize("module", ["sasa_tf.keras", "sasa_tf.registry_imports"])
def test_imports_report_the_backend_of_keras_json(module, tmp_path):
  (tmp_path / "keras.json").write_text(json.dumps({"backend": "torch"}))
  program = f"try:\n  import {module}\nexcept ImportError as error:\n  print(error)"
  done = run("-c", program, KERAS_HOME=str(tmp_path), KERAS_BACKEND="")
  expected = f"{module} needs Keras 3 with the TensorFlow backend; received 'torch' from {tmp_path}"
  assert done.stdout.startswith(expected), done.stderr


@pytest.mark.parametrize("content", [None, "{", "[]", "{}", '{"backend": "tensorflow"}'])
def test_other_configurations_pass(content, tmp_path):
  if content is not None:
    (tmp_path / "keras.json").write_text(content)
  program = "from sasa_tf import extras; extras.require_tensorflow_backend('x')"
  assert run("-c", program, KERAS_HOME=str(tmp_path), KERAS_BACKEND="").returncode == 0
  assert run("-c", program, KERAS_BACKEND="tensorflow").returncode == 0


def test_no_check_is_an_assert_statement():
  """`python -O` omits these."""
  found = [
    f"{path}:{node.lineno}"
    for path, source in sources("sasa_tf").items()
    for node in ast.walk(ast.parse(source))
    if isinstance(node, ast.Assert)
  ]
  assert not found, "raise an error instead: " + ", ".join(found)


@pytest.mark.slow  # compiles TensorFlow's modules again
def test_conversion_runs_without_assertions(tmp_path):
  done = run(
    *("-O", "-m", "sasa_tf.bin.make_tfrecords", "digits"),
    *(f"--output={tmp_path}/data", "--num_preview_images=0"),
  )
  assert done.returncode == 0, done.stderr
  assert (tmp_path / "data/dataset.json").exists()


def test_checks_work_without_assertions(tmp_path):
  done = run(
    *("-O", "-m", "sasa_tf.bin.export_saved_model", "--overwrite"),
    *(f"--model_dir={tmp_path}", f"--export_dir={tmp_path}"),
  )
  assert done.returncode == 2 and done.stderr.startswith("error: --export_dir=")


@pytest.fixture(scope="module")
def train_arguments(tmp_path_factory):
  from tests.training import tiny_run  # imports Model Garden

  data = tiny_run.write_data(tmp_path_factory.mktemp("data"))
  return [
    *("-m", "sasa_tf.bin.train", "--experiment=sasa_resnet_digits", "--mode=train"),
    f"--params_override={tiny_run.overrides(data, steps=2)}",
  ]


def run_in_shell(setup, arguments):
  """Runs Python in a shell, after a command that sets it up."""
  return subprocess.run(
    ["bash", "-c", f'{setup}; exec "$0" "$@"', sys.executable, *arguments],
    capture_output=True,
    text=True,
    timeout=300,
  )


@pytest.mark.slow
@pytest.mark.parametrize("gibibytes", [4, 6, 12])
def test_training_within_a_limit_of_virtual_memory(gibibytes, train_arguments, tmp_path):
  """It trains, or ends with one paragraph."""
  arguments = [*train_arguments, f"--model_dir={tmp_path}"]
  done = run_in_shell(f"ulimit -v {gibibytes << 20}", arguments)
  assert done.returncode in (0, 2), done.stderr
  assert "Traceback" not in done.stderr
  if done.returncode == 2:
    assert "memory" in done.stderr.splitlines()[-1]
  else:
    assert (tmp_path / "ckpt-2.index").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
  "setup", ["unset HOME", "export HOME=/proc/none XDG_CACHE_HOME=/proc/none"]
)
def test_training_without_a_home_directory(setup, train_arguments, tmp_path):
  done = run_in_shell(setup, [*train_arguments, f"--model_dir={tmp_path}"])
  assert done.returncode == 0, done.stderr
  assert (tmp_path / "ckpt-2.index").exists()


@pytest.mark.parametrize("model_dir", ["", " "])
def test_empty_model_dir_is_rejected(model_dir, tmp_path):
  arguments = ["--experiment=sasa_resnet_digits", "--mode=train", f"--model_dir={model_dir}"]
  done = subprocess.run(
    [sys.executable, "-m", "sasa_tf.bin.train", *arguments],
    cwd=tmp_path,
    env={**os.environ, "PYTHONPATH": str(pathlib.Path(__file__).parents[2])},
    capture_output=True,
    text=True,
    timeout=100,
    check=False,
  )
  assert done.returncode == 2
  assert done.stderr.startswith("error: --model_dir is empty.") and done.stderr.count("\n") == 1
  assert not list(tmp_path.iterdir())
