"""`sasa COMMAND`, its help and its completion."""

import json
import os
import re
import shutil
import subprocess
import sys
import textwrap

import pytest

from sasa_tf.commandline import commands, completion, flag_source, short_help
from sasa_tf.errors import UserError


def sasa(*arguments):
  """Runs `sasa` with TensorFlow's log as a user has it."""
  return subprocess.run(
    [sys.executable, "-m", "sasa_tf.commandline", *arguments],
    env={key: value for key, value in os.environ.items() if key != "TF_CPP_MIN_LOG_LEVEL"},
    capture_output=True,
    text=True,
    timeout=120,
    check=False,
  )


def test_commands_are_listed_without_arguments():
  done = sasa()
  assert done.returncode == 0 and done.stderr == ""
  assert re.findall(r"^  ([a-z-]+) ", done.stdout, re.MULTILINE) == [*commands.COMMANDS]
  assert all(len(line) <= 80 for line in done.stdout.splitlines())


@pytest.mark.parametrize(
  ("name", "hint"),
  [("trian", "'train'"), ("make_tfrecords", "`sasa convert`"), ("x" * 999, "Known")],
)
def test_unknown_command_is_one_line(name, hint):
  done = sasa(name)
  assert done.returncode == 2 and done.stderr.count("\n") == 1
  assert hint in done.stderr


def test_command_runs_the_program_with_its_flags():
  done = sasa("predict", "--saved_model=/nonexistent", "image.png")
  assert done.returncode == 2
  # TensorFlow, which the program imports, has logged nothing.
  assert done.stderr.startswith("error: --saved_model=/nonexistent is not a SavedModel")


# Prints {command: {flag: help}} of the programs. Their flags have the same names, so those of one
# are removed before the next is imported.
REGISTERED = """
import importlib, json, sys
from absl import app, flags, logging
from sasa_tf.commandline.commands import COMMANDS
result = {}
app.define_help_flags()
for name, command in COMMANDS.items():
  if ".bin." not in command.module:
    continue
  before = set(flags.FLAGS)
  module = importlib.import_module(command.module)
  if hasattr(module, "define_flags"):
    module.define_flags(flags.FLAGS)
  added = set(flags.FLAGS) - before
  result[name] = {flag: flags.FLAGS[flag].help for flag in added}
  for flag in added:
    delattr(flags.FLAGS, flag)
  for shared in ("preset_flag", "export_flags", "serving_flags"):  # to be defined again
    if sys.modules.pop(f"sasa_tf.bin.{shared}", None):
      delattr(sys.modules["sasa_tf.bin"], shared)
print(json.dumps(result))
"""


@pytest.fixture(scope="module")
def registered():
  """Returns {command: {flag: help}} as absl has them."""
  done = subprocess.run(
    [sys.executable, "-c", REGISTERED], capture_output=True, text=True, timeout=300, check=False
  )
  assert done.returncode == 0, done.stderr
  return json.loads(done.stdout)


def test_flags_of_the_source_are_those_of_the_programs(registered):
  assert len(registered) > 9
  for name, expected in registered.items():
    found = {flag.name: flag.help for flag in flag_source.flags_of(commands.find(name).source)}
    assert set(found) == set(expected), name
    for flag, text in found.items():
      assert text and text in expected[flag], (name, flag)


@pytest.mark.parametrize("name", [*commands.COMMANDS])
def test_short_help_fits_a_screen(name):
  text = short_help.short_help(commands.find(name).source, f"sasa {name}")
  lines = text.split("\n")
  assert len(lines) <= 45 and max(map(len, lines)) <= 100
  assert "python -m" not in text
  assert any(line.startswith(f"  sasa {name}") for line in lines), text


def test_short_help_of_a_program_imports_no_tensorflow():
  code = "import sys; sys.argv = ['x', '--helpshort']\n" + textwrap.dedent(
    """
    from sasa_tf.bin import predict
    predict.run()
    assert 'tensorflow' not in sys.modules
    """
  )
  done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
  assert done.returncode == 0, done.stderr
  assert "--saved_model" in done.stdout


def test_completion_of_commands_and_flags():
  assert completion.candidates(["ex"]) == ["export", "explain"]
  assert completion.candidates([]) == [*commands.COMMANDS, "completion"]
  assert "--model_dir=" in completion.candidates(["train", "--mo"])
  assert completion.candidates(["no_command", ""]) == []
  assert completion.candidates(["completion", "z"]) == ["zsh"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_script_is_valid(shell):
  script = completion.script(shell)
  if not shutil.which(shell):
    pytest.skip(f"{shell} is not installed")
  assert subprocess.run([shell, "-n"], input=script, text=True, check=False).returncode == 0


def test_completion_in_bash(tmp_path):
  tool = tmp_path / "sasa"
  tool.write_text(f'#!/bin/sh\nexec {sys.executable} -m sasa_tf.commandline "$@"\n')
  tool.chmod(0o755)
  code = completion.script("bash") + (
    "COMP_WORDS=(sasa predict --sa); COMP_CWORD=2; compopt() { :; }; _sasa; echo ${COMPREPLY[@]}"
  )
  environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
  done = subprocess.run(
    ["bash", "-c", code], capture_output=True, text=True, env=environment, check=False
  )
  assert done.stdout == "--saved_model=\n", done.stderr


def test_unknown_shell_is_rejected():
  with pytest.raises(UserError, match="bash, zsh, fish, not 'tcsh'"):
    completion.script("tcsh")
