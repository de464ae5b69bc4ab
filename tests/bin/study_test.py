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
  broken: {overrides: {task.model.classes: 10}}
"""


def study(directory, *flags, check=True):
  command = [sys.executable, "-m", "sasa_tf.bin.study", *flags]
  done = subprocess.run(
    command, cwd=directory, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=900
  )
  assert not check or done.returncode == 0, done.stdout
  return done.returncode, done.stdout


def test_dry_run_and_errors(tmp_path):
  (tmp_path / "tiny.yaml").write_text(STUDY)
  (tmp_path / "lost.yaml").write_text(f"{STUDY}config_files: [nope.yaml]\n")
  arguments = ("--study=tiny.yaml", "--output=out", "--gpus=none", "--dry_run")
  _, output = study(tmp_path, *arguments, "--rows=attention_4", "--seeds=3,4")
  commands = [line for line in output.splitlines() if "sasa_tf.bin.train" in line]
  assert len(commands) == 2 and all("--config_file=out/attention_4/" in line for line in commands)
  assert "--model_dir=out/attention_4/seed4 --seed=4" in commands[1]
  assert not (tmp_path / "out").exists()
  for flags, message in (
    (("--rows=attention",), "no row 'attention'. Did you mean 'attention_4'"),
    (("--seeds=a",), "--seeds: expected integers"),
    (("--seeds=-1",), "--seeds: expected integers from 0 to 4294967295"),
    (("--study=tinny.yaml",), "--study=tinny.yaml: no such file"),
    (("--study=lost.yaml",), "--study=lost.yaml, config_files=nope.yaml: no such file"),
    (("--output=",), "--study needs --output"),
  ):
    status, output = study(tmp_path, *arguments, *flags, check=False)
    assert status == 2 and message in output and "Traceback" not in output


@pytest.mark.slow
def test_two_rows_on_the_digits(tmp_path):
  digits.convert(output=str(tmp_path / "data"), num_preview_images=0)
  (tmp_path / "tiny.yaml").write_text(STUDY.replace("DATA", str(tmp_path / "data")))
  arguments = ("--study=tiny.yaml", "--output=out", "--gpus=none")
  # Ended in the first run, while it starts or trains.
  status, output = study(tmp_path, *arguments, "--time_limit=8", check=False)
  assert status == 75 and "To resume, rerun the same command" in output
  status, output = study(tmp_path, *arguments, "--report=report.md", check=False)
  assert status == 1 and "1 of 3 runs failed" in output and "no key 'classes'" in output
  lines = (tmp_path / "out" / "results.jsonl").read_text().splitlines()
  found = {record["case"]["row"]: record for record in map(json.loads, lines)}
  assert found.pop("broken")["status"] == "failed"
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
  assert "| broken, seed 0 |" in report
  _, output = study(tmp_path, *arguments, "--rows=convolution,attention_4")
  assert "2 of 2 runs are already finished" in output
