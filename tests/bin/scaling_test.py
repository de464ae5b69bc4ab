"""The scaling program: a dry run on logical CPUs, and a small model on two GPUs."""

import json
import subprocess
import sys

import pytest
import tensorflow as tf

from sasa_tf.native import library

GPUS = len(tf.config.list_physical_devices("GPU"))
SIZES = ["--model_id=26", "--batch_size=4", "--dtype=float32", "--steps=2", "--models=conv"]


def run(output, *arguments):
  """Returns the results, and the rows of the printed table."""
  command = [sys.executable, "-m", "sasa_tf.bin.scaling", *SIZES, *arguments]
  printed = subprocess.run(
    [*command, f"--output={output}"], stdout=subprocess.PIPE, text=True, check=True
  ).stdout
  results = [json.loads(line) for line in output.read_text().splitlines()]
  assert not any(result["error"] for result in results), results
  return results, [line.split() for line in printed.splitlines() if line.startswith("conv")]


@pytest.mark.slow
def test_dry_run(tmp_path):
  modes = ["between_programs", *(["in_program"] if library.load().platforms else [])]
  (one, two, *within), rows = run(
    tmp_path / "scaling.jsonl",
    "--num_logical_cpus=2",
    "--image_size=32",
    "--rounds=1",
    f"--all_reduce={','.join(modes)}",
  )
  assert (one["case"]["replicas"], two["case"]["replicas"]) == (1, 2)
  assert [result["case"]["all_reduce"] for result in (two, *within)] == modes
  for result in (two, *within):
    # All replicas get the same images.
    assert result["loss"] == pytest.approx(one["loss"], abs=1e-4)
  assert one["gradient_bytes"] == two["gradient_bytes"] == 4 * 13_696_552
  assert one["efficiency"] == 1 and 0 < two["efficiency"] < 2
  assert two["images_per_second"] == pytest.approx(8 / two["seconds"][0])
  assert [row[1] for row in rows] == ["1", *["2"] * len(modes)]


@pytest.mark.gpu
@pytest.mark.skipif(GPUS < 2, reason="2 GPUs")
def test_two_gpus(tmp_path):
  results, rows = run(
    tmp_path / "scaling.jsonl",
    "--replicas=1,2",
    "--image_size=64",
    "--all_reduce=in_program,between_programs,none",
  )
  one, *reduced, _ = results
  for result in reduced:
    assert result["loss"] == pytest.approx(one["loss"], abs=1e-3)
  assert [row[2] for row in rows] == ["none", "in_program", "between_programs", "none"]
