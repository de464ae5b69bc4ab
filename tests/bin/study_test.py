"""A study of real trainings: two rows on the digits, interrupted, resumed and reported."""

import json
import subprocess
import sys

import pytest

from sasa_tf.data.classification import digits

STUDY = """
name: tiny
experiment: sasa_resnet_digits
target: 0.05
overrides:
  task.model.backbone.sasa_resnet: {width_multiplier: 0.0625, num_heads: 2}
  task.train_data.input_path: DATA/train-*
  task.validation_data.input_path: DATA/validation-*
  trainer: {train_steps: 60, steps_per_loop: 10, summary_interval: 10, checkpoint_interval: 20}
  trainer.validation_interval: 30
rows:
  convolution: {overrides: {task.model.backbone.sasa_resnet.attention_groups: []}}
  attention_4:
    overrides: {task.model.backbone.sasa_resnet.attention_groups: [4]}
    paper: fewer parameters
    compare_with: convolution
    expect: not_lower
"""


def study(directory, *flags, check=True):
  command = [sys.executable, "-m", "sasa_tf.bin.study", *flags]
  done = subprocess.run(
    command, cwd=directory, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=900
  )
  assert not check or done.returncode == 0, done.stdout
  return done.returncode, done.stdout


@pytest.mark.slow
def test_two_rows_on_the_digits(tmp_path):
  digits.convert(output=str(tmp_path / "data"), num_preview_images=0)
  (tmp_path / "tiny.yaml").write_text(STUDY.replace("DATA", str(tmp_path / "data")))
  arguments = ("--study=tiny.yaml", "--output=out", "--gpus=none")
  # Ended in the first run, while it starts or trains.
  status, output = study(tmp_path, *arguments, "--time_limit=45", check=False)
  assert status == 75 and "To resume, rerun the same command" in output
  _, output = study(tmp_path, *arguments, "--report=report.md")
  lines = (tmp_path / "out" / "results.jsonl").read_text().splitlines()
  found = {record["case"]["row"]: record for record in map(json.loads, lines)}
  assert set(found) == {"convolution", "attention_4"}
  for record in found.values():
    assert record["status"] == "finished" and record["step"] == record["train_steps"] == 60
    assert 0 < record["value"] <= 1
    assert [event["step"] for event in record["evaluations"]][-1] == 60
    assert record["flops"]["mac"] > 0 and record["images_per_second"] > 0
    assert record["peak_memory"]["kind"] == "host_rss" and record["device"] == "CPU"
    assert record["versions"]["tensorflow"] and record["settings"]["experiment"]
  assert found["attention_4"]["parameters"] < found["convolution"]["parameters"]
  report = (tmp_path / "report.md").read_text()
  assert "| attention_4 | convolution |" in report and "one seed" in report
  status, output = study(tmp_path, *arguments)
  assert "2 of 2 runs are already finished" in output
