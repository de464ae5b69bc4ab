"""The program in a process; its logic is tested in tests/analysis."""

import ast
import inspect
import json
import os
import pathlib
import subprocess
import sys

import pytest

from sasa_tf.modeling import SASAResNetBase

SOURCE = pathlib.Path(__file__).parents[2] / "sasa_tf" / "bin" / "profile_model.py"


def test_parameters_of_a_config_file():
  done = subprocess.run(
    [
      sys.executable,
      "-m",
      "sasa_tf.bin.profile_model",
      "--config_file=cifar10/sasa_resnet26.yaml",
      "--convention=mac",
      "--format=json",
    ],
    capture_output=True,
    text=True,
    timeout=300,
  )
  assert done.returncode == 0, done.stderr
  value = json.loads(done.stdout)
  assert value["parameters"] == 528_328
  assert value["input_shapes"] == [[32, 32, 3]]
  assert value["profiler"]["flops"] > 0


def test_flags_match_the_arguments_of_the_model():
  flags = {
    node.args[0].value
    for statement in ast.parse(SOURCE.read_text()).body
    if isinstance(statement, ast.Assign) and statement.targets[0].id == "_MODEL_FLAGS"
    for node in statement.value.elts
  }
  arguments = set(inspect.signature(SASAResNetBase.__init__).parameters)
  # Arguments that do not affect the cost or that other flags set.
  unused = {"self", "kwargs", "border", "input_shape", "activation", "use_sync_bn"}
  unused |= {"norm_momentum", "norm_epsilon", "kernel_initializer", "kernel_regularizer"}
  unused |= {"zero_init_residual"}
  assert flags == (arguments - unused) | {"num_classes"}


@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    (["--paper_tables=1", "--plot=a.png", "--output=./a.png"], "--output and --plot are both ./a"),
    (["--config_file=binary"], "expected --experiment, or a --config_file whose header names one"),
    (["--width_multiplier=100000"], "flag --width_multiplier=100000"),
  ],
)
def test_contradictory_and_broken_arguments(arguments, message, tmp_path):
  (tmp_path / "binary").write_bytes(b"\x94\x00\xff")
  done = subprocess.run(
    [sys.executable, "-m", "sasa_tf.bin.profile_model", *arguments],
    cwd=tmp_path,
    env={**os.environ, "PYTHONPATH": str(SOURCE.parents[2])},
    capture_output=True,
    text=True,
    timeout=300,
  )
  assert done.returncode == 2 and "Traceback" not in done.stderr
  assert done.stderr.splitlines()[-1].startswith(f"error: {message}"), done.stderr
  assert sorted(os.listdir(tmp_path)) == ["binary"]
