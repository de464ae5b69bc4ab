"""The scaling program: a dry run on logical CPUs."""

import json
import subprocess
import sys

import pytest

from sasa_tf.native import library


@pytest.mark.slow
def test_dry_run(tmp_path):
  output = tmp_path / "scaling.jsonl"
  arguments = ["--num_logical_cpus=2", "--model_id=26", "--image_size=32", "--batch_size=4"]
  modes = ["between_programs", *(["in_program"] if library.load().platforms else [])]
  arguments.append(f"--all_reduce={','.join(modes)}")
  size = ["--dtype=float32", "--steps=2", "--rounds=1", "--models=conv"]
  printed = subprocess.run(
    [sys.executable, "-m", "sasa_tf.bin.scaling", *arguments, *size, f"--output={output}"],
    stdout=subprocess.PIPE,
    text=True,
    check=True,
  ).stdout
  one, two, *within = [json.loads(line) for line in output.read_text().splitlines()]
  assert (one["case"]["replicas"], two["case"]["replicas"]) == (1, 2)
  assert [run["case"]["all_reduce"] for run in (two, *within)] == modes
  for run in within:
    assert run["loss"] == pytest.approx(one["loss"], abs=1e-4)
  assert two["loss"] == pytest.approx(one["loss"], abs=1e-4)  # all replicas get the same images
  assert one["gradient_bytes"] == two["gradient_bytes"] == 4 * 13_696_552
  assert one["efficiency"] == 1 and 0 < two["efficiency"] < 2
  assert two["images_per_second"] == pytest.approx(8 / two["seconds"][0])
  rows = [line.split() for line in printed.splitlines() if line.startswith("conv")]
  assert [row[1] for row in rows] == ["1", *["2"] * len(modes)]
