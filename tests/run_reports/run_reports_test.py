"""Reports of trainings."""

import json
import re

import pytest
from PIL import Image

from sasa_tf.errors import UserError
from sasa_tf.run_reports import page, tables
from sasa_tf.run_reports.runs import read_runs
from tests.run_reports.run_directories import make_run


def test_runs_below_a_directory_are_found_and_named(tmp_path):
  for name in ("study/b/seed0", "study/a/seed0", "study/a/seed1"):
    make_run(tmp_path / name)
  (tmp_path / "study/notes").mkdir()
  runs = read_runs([str(tmp_path / "study"), str(tmp_path / "study/b/seed0")])
  assert [run.name for run in runs] == ["a/seed0", "a/seed1", "b/seed0"]
  assert read_runs([str(tmp_path / "study/b/seed0")])[0].name == "seed0"


@pytest.mark.parametrize("kind", ["missing", "empty", "file"])
def test_path_without_a_training_is_named(kind, tmp_path):
  path = tmp_path / "run"
  if kind == "empty":
    path.mkdir()
  elif kind == "file":
    path.write_text("x")
  with pytest.raises(UserError, match=f"{re.escape(str(path))} holds no training"):
    read_runs([str(path)])


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"[]\n", b'{"event": "train"}\n'])
def test_log_without_events_is_named(content, tmp_path):
  make_run(tmp_path / "run")
  (tmp_path / "run/run_log.jsonl").write_bytes(content)
  with pytest.raises(UserError, match=r"run_log\.jsonl: no training has begun there"):
    read_runs([str(tmp_path)])


def test_table_of_runs(tmp_path):
  make_run(tmp_path / "a", accuracy=0.75)
  make_run(tmp_path / "b", steps=20, finished=False)
  header, first, second = tables.runs_table(read_runs([str(tmp_path)])).to_text().split("\n")
  assert header.split()[-2:] == ["accuracy", "validation_loss"]
  # 10 steps of 8 images in 5 seconds.
  assert first.split() == ["a", "40", "1,234", "16", "-", "40", "s", "0.75", "2"]
  assert second.split()[:4] == ["b", "20", "of", "40"]


def test_differences_of_the_configurations(tmp_path):
  make_run(tmp_path / "a", kernel_size=3, model={"stem": "conv"})
  make_run(tmp_path / "b", kernel_size=7, model={"stem": "conv", "border": "mask"})
  broken = make_run(tmp_path / "c")
  (broken / "params.yaml").write_text("{")
  runs = read_runs([str(tmp_path)])
  lines = [line.split() for line in tables.differences_table(runs).to_text().split("\n")]
  assert lines[0] == ["key", "a", "b"]
  assert ["task.kernel_size", "3", "7"] in lines
  assert ["task.model.border", "-", "mask"] in lines
  assert not any(line and line[0] in ("task.model.stem", "trainer.steps") for line in lines)
  assert tables.differences_table(runs[:1]) is None


def test_report_is_one_page_with_curves(tmp_path):
  make_run(tmp_path / "a<b>", kernel_size=3)
  make_run(tmp_path / "b", kernel_size=7)
  files = page.check_output(str(tmp_path / "report.html"), overwrite=False)
  page.write_report(read_runs([str(tmp_path)]), *files)
  text = (tmp_path / "report.html").read_text()
  assert "a&lt;b&gt;" in text and "a<b>" not in text and "task.kernel_size" in text
  assert "http" not in text.replace("https://", "http", 0) or 'src="http' not in text
  with Image.open(tmp_path / "report.png") as image:
    assert image.width > 1000 and len(image.convert("L").getcolors()) > 10
    # Three panels: the place of the fourth is empty.
    width, height = image.size
    assert image.convert("L").crop(
      (width * 6 // 10, height * 6 // 10, width, height)
    ).getextrema() == (
      255,
      255,
    )
  with pytest.raises(UserError, match="exists"):
    page.check_output(str(tmp_path / "report.html"), overwrite=False)
  with pytest.raises(UserError, match=r"ends with \.html"):
    page.check_output(str(tmp_path / "report.pdf"), overwrite=False)


def test_output_that_cannot_be_written_is_named(tmp_path):
  make_run(tmp_path / "a")
  files = page.check_output("/proc/report.html", overwrite=False)
  with pytest.raises(UserError, match=r"/proc/report\.png cannot be written: No such file"):
    page.write_report(read_runs([str(tmp_path)]), *files)


def test_run_without_events_after_its_begin_has_no_curves(tmp_path):
  run = make_run(tmp_path / "a")
  log = run / "run_log.jsonl"
  log.write_text(log.read_text().split("\n")[0] + "\n")
  files = page.check_output(str(tmp_path / "report.html"), overwrite=False)
  page.write_report(read_runs([str(run)]), *files)
  assert files[0].exists() and not files[1].exists()


def test_names_with_dollars_are_no_formulas(tmp_path):
  make_run(tmp_path / "lr=$x_{$")
  make_run(tmp_path / "lr=$\\frac$")
  files = page.check_output(str(tmp_path / "report.html"), overwrite=False)
  page.write_report(read_runs([str(tmp_path)]), *files)
  assert files[1].exists()


def test_losses_that_are_not_finite_are_not_drawn(tmp_path):
  run = make_run(tmp_path / "a")
  events = [
    {"event": kind, "step": step, "seconds": 1.0, "metrics": {"loss": value}}
    for kind in ("train", "evaluation")
    for step, value in enumerate((1e18, float("inf"), float("nan"), -1e18, float("-inf")), start=50)
  ]
  with (run / "run_log.jsonl").open("a") as file:
    file.writelines(f"{json.dumps(event)}\n" for event in events)
  files = page.check_output(str(tmp_path / "report.html"), overwrite=False)
  page.write_report(read_runs([str(run)]), *files)
  assert files[1].exists() and "-inf" in files[0].read_text()
