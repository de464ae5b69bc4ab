"""The examples of the guides run: Python with its documented output, and commands."""

import contextlib
import io
import os
import pathlib
import re
import shlex
import subprocess
import sys
import textwrap

import pytest

ROOT = pathlib.Path(__file__).parent.parent
GUIDES = {
  path.stem: path.read_text()
  for path in (
    ROOT / "docs" / "getting_started.md",
    ROOT / "docs" / "concepts.md",
    ROOT / "docs" / "presets.md",
    *sorted((ROOT / "docs" / "how_to").glob("*.md")),
  )
}


def blocks(name, language):
  """Returns the code blocks of a guide, with the output that follows each, or None."""
  text = GUIDES[name]
  found = re.findall(
    rf"^( *)```{language}\n(.*?)^ *```\n(?:\n *```text\n(.*?)^ *```\n)?", text, re.DOTALL | re.M
  )
  return [(textwrap.dedent(code), textwrap.dedent(output) or None) for _, code, output in found]


@pytest.mark.parametrize("name", [name for name in GUIDES if blocks(name, "python")])
def test_python_examples_print_the_documented_output(name):
  variables = {}
  for code, expected in blocks(name, "python"):
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
      exec(compile(code, f"{name}.md", "exec"), variables)
    assert printed.getvalue() == (expected or "")


def train_commands():
  """Returns (guide, arguments) of each training."""
  for name in GUIDES:
    for code, _ in blocks(name, "sh"):
      for arguments in re.findall(r"-m sasa_tf\.bin\.train (.*?)(?:&?$)", unwrapped(code), re.M):
        yield name, shlex.split(arguments)


def unwrapped(code):
  """Returns shell code with one command per line."""
  return re.sub(r"\\\n\s*", "", code)


@pytest.mark.parametrize(
  ("name", "arguments"), train_commands(), ids=lambda value: value if type(value) is str else ""
)
def test_configurations_of_the_commands_are_valid(name, arguments):
  from sasa_tf import registry_imports  # noqa: F401
  from sasa_tf.training import experiment

  flags = dict(argument.removeprefix("--").split("=", 1) for argument in arguments)
  files = [flags["config_file"]] if "config_file" in flags else []
  override = flags.get("params_override", "").replace("$index", "0")
  assert experiment.load_experiment(flags["experiment"], files, override)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  """Returns a working directory with a folder of images per class."""
  from PIL import Image

  folder = tmp_path_factory.mktemp("work")
  for name, color in (("cats", "orange"), ("dogs", "brown")):
    (folder / "photos" / name).mkdir(parents=True)
    for index in range(20):
      Image.new("RGB", (40 + index, 36), color).save(folder / f"photos/{name}/{index:04}.jpg")
  return folder


# In this order: the later guides use the model of the first.
@pytest.mark.slow
@pytest.mark.parametrize("name", ["getting_started", "serve", "own_data", "multi_gpu"])
def test_commands_run(name, folder):
  environment = os.environ | {
    "PATH": f"{pathlib.Path(sys.executable).parent}:{os.environ['PATH']}",
    "PYTHONPATH": str(ROOT),
  }
  for code, _ in blocks(name, "sh"):
    if "sasa_resnet_imagenet" in code:  # needs data and GPUs
      continue
    if name == "own_data":  # a short training
      code = code.replace(
        '--params_override="',
        '--params_override="trainer.train_steps=2,trainer.steps_per_loop=1,'
        "trainer.summary_interval=1,trainer.checkpoint_interval=2,trainer.validation_interval=2,"
        "task.train_data.global_batch_size=4,task.validation_data.global_batch_size=4,",
      )
    ended = subprocess.run(
      ["bash", "-euc", code], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stderr
