"""Runs of a study: scheduling, resuming, failures and lost GPUs, with a stub in place of train."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from sasa_tf.errors import PreemptedError, UserError
from sasa_tf.studies import scheduler
from sasa_tf.studies.locks import lock_file
from tests.studies import stub_study
from tests.studies.stub_study import GPUS, by_run, make_program, results


def test_finished_runs_are_recorded_and_not_repeated(tmp_path):
  make_program(tmp_path, ["a", "b"], seeds=2, target=0.905).run()
  found = by_run(tmp_path)
  # Records may wait for the cost of their row.
  assert sorted(found) == [("a", 0), ("a", 1), ("b", 0), ("b", 1)]
  record = found["b", 1]
  assert record["status"] == "finished" and record["error"] is None
  assert record["value"] == pytest.approx(0.91) and record["metric"] == "accuracy"
  assert record["parameters"] == 100 and record["flops"]["mac"] == 2000
  assert record["peak_memory"] == {"kind": "device", "bytes": 2000}
  assert record["step"] == record["train_steps"] == 2 and record["device"] == "stub"
  assert record["target"]["step"] == 2
  # In milliseconds: 0.0 if the stub is fast.
  assert record["target"]["seconds"] == record["evaluations"][0]["seconds"]
  assert found["a", 0]["target"]["seconds"] is None
  assert [event["step"] for event in record["evaluations"]] == [2]
  again = make_program(tmp_path, ["a", "b"], seeds=2)
  assert not again.remaining
  again.run()
  assert len(results(tmp_path)) == 4


def test_failures_do_not_stop_the_others_and_are_tried_again(tmp_path):
  program = make_program(tmp_path, ["fails", "a"], cost=False)
  program.run()
  assert program.failures == {"fails, seed 0": "the data is missing (exit status 2)"}
  found = by_run(tmp_path)
  assert found["fails", 0]["status"] == "failed" and found["fails", 0]["value"] is None
  assert found["a", 0]["status"] == "finished" and found["a", 0]["flops"] is None
  assert [run.name for run in make_program(tmp_path, ["fails", "a"]).remaining] == ["fails, seed 0"]


def test_runs_use_all_gpus_at_the_same_time(tmp_path):
  rows = ["a", "b", "c", "d"]
  program = make_program(tmp_path, rows, found=GPUS, processes_per_gpu=2, steps=1, delay=1.0)
  start = time.monotonic()
  program.run()
  assert time.monotonic() - start < 3.5  # 4 seconds one after the other
  logs = [(tmp_path / "out" / row / "seed0.log").read_text() for row in rows]
  assert [log.split("gpu ")[1].split()[0] for log in logs] == ["GPU-0", "GPU-1", "GPU-0", "GPU-1"]


def test_order_of_runs(tmp_path):
  names = {
    order: [run.name for run in make_program(tmp_path, ["b", "a"], seeds=2, order=order).remaining]
    for order in ("seeds", "rows")
  }
  assert names["seeds"] == ["b, seed 0", "a, seed 0", "b, seed 1", "a, seed 1"]
  assert names["rows"] == ["b, seed 0", "b, seed 1", "a, seed 0", "a, seed 1"]


def test_starts_are_apart(tmp_path):
  rows = ["a", "b", "c"]
  program = make_program(tmp_path, rows, found=GPUS, processes_per_gpu=2, start_interval=1.0)
  start = time.monotonic()
  program.run()
  assert time.monotonic() - start > 2.0
  assert not program.failures


def test_cores_are_shared(monkeypatch):
  monkeypatch.setattr(os, "sched_getaffinity", lambda process: {9, 8, 1, 2, 3, 4, 5})
  assert scheduler.share_cores(3) == [{1, 2}, {3, 4}, {5, 8}]
  assert scheduler.share_cores(8) == [{1}, {2}, {3}, {4}, {5}, {8}, {9}, {1}]


def test_runs_are_pinned_to_their_cores(tmp_path, monkeypatch):
  pinned = []
  set_affinity = os.sched_setaffinity

  def spy(process, cores):
    pinned.append(cores)
    set_affinity(process, cores)

  monkeypatch.setattr(os, "sched_setaffinity", spy)
  program = make_program(tmp_path, ["a", "b"], found=GPUS, pin_cores=True)
  program.run()
  assert pinned == scheduler.share_cores(2) and not program.failures


@pytest.mark.parametrize("present", [False, True], ids=["disappeared", "fails repeatedly"])
def test_runs_of_a_lost_gpu_continue_on_another(tmp_path, present):
  rows = ["lost", "lost_2", "a"]
  missing = [] if present else GPUS[:1]
  program = make_program(
    tmp_path, rows, found=GPUS, missing_gpus=lambda expected: [g for g in expected if g in missing]
  )
  program.run()
  assert not program.failures
  assert {record["status"] for record in by_run(tmp_path).values()} == {"finished"}


def test_runs_without_any_gpu_left_are_recorded(tmp_path):
  program = make_program(tmp_path, ["lost", "a"], found=GPUS[:1], missing_gpus=list)
  program.run()
  assert set(program.failures) == {"lost, seed 0", "a, seed 0"}
  assert "no GPU of this host works any more" in by_run(tmp_path)["a", 0]["error"]


def test_run_that_waits_for_a_missing_gpu_is_killed(tmp_path, monkeypatch):
  monkeypatch.setattr(scheduler, "GPU_CHECK_SECONDS", 0.1)
  program = make_program(
    tmp_path,
    ["waits"],
    found=GPUS,
    missing_gpus=lambda expected: [g for g in expected if g == GPUS[0]],
  )
  program.run()
  assert by_run(tmp_path)["waits", 0]["status"] == "finished"
  log = (tmp_path / "out" / "waits" / "seed0.log").read_text()
  assert log.index("gpu GPU-0") < log.index("gpu GPU-1")


def test_time_limit_saves_and_the_next_call_resumes(tmp_path):
  arguments = {"steps": 40, "delay": 0.05}
  with pytest.raises(PreemptedError, match=r"time limit of 1 seconds .* 0 of 1 runs .* rerun"):
    make_program(tmp_path, ["a"], **arguments).run(time_limit=1)
  assert not results(tmp_path)
  make_program(tmp_path, ["a"], **arguments).run()
  (record,) = results(tmp_path)
  assert record["processes"] == 2 and record["step"] == 40
  assert record["seconds"] >= 40 * 0.05
  assert record["images_per_second"] == pytest.approx(8 / 0.05, rel=0.3)


def test_run_that_ignores_sigterm_is_killed(tmp_path):
  program = make_program(tmp_path, ["deaf"], steps=100, delay=0.1, grace_seconds=0.5)
  start = time.monotonic()
  with pytest.raises(PreemptedError):
    program.run(time_limit=0.5)
  assert time.monotonic() - start < 4


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_end_the_children(tmp_path, number):
  program = make_program(tmp_path, ["a", "b"], steps=200, delay=0.05)
  threading.Timer(0.8, os.kill, (os.getpid(), number)).start()
  before = signal.getsignal(number)
  with pytest.raises(PreemptedError, match=f"{number.name} received; 0 of 2"):
    program.run()
  assert signal.getsignal(number) is before
  assert (tmp_path / "out" / "a" / "seed0" / "ckpt-last.index").exists()


def test_run_of_another_process_is_not_started(tmp_path):
  program = make_program(tmp_path, ["a"])
  lock = lock_file(program.remaining[0].lock)
  program.run()
  assert "another process is running it" in program.failures["a, seed 0"]
  lock.close()


def test_lock_is_held_while_an_orphaned_child_runs(tmp_path):
  path = tmp_path / "lock"
  lock = lock_file(path)
  child = subprocess.Popen(
    [sys.executable, "-S", "-c", "input()"], stdin=subprocess.PIPE, pass_fds=[lock.fileno()]
  )
  lock.close()
  assert lock_file(path) is None
  child.communicate(b"\n")
  assert lock_file(path) is not None


def test_run_that_was_trained_but_not_recorded_is_recorded(tmp_path):
  make_program(tmp_path, ["a"]).run()
  (tmp_path / "out" / "results.jsonl").unlink()
  program = make_program(tmp_path, ["a"], steps=99)  # would take other steps if it ran
  program.run()
  assert by_run(tmp_path)["a", 0]["step"] == 2


def test_other_settings_in_the_same_output_raise(tmp_path):
  make_program(tmp_path, ["a"]).run()
  with pytest.raises(UserError, match=r"a, seed 0 finished with other settings"):
    make_program(tmp_path, ["a"], params_override="x=1")
  (tmp_path / "out" / "results.jsonl").unlink()
  with pytest.raises(UserError, match=r"other settings \(params_override changed\)"):
    make_program(tmp_path, ["a"], params_override="x=1").run()


def test_finished_runs_without_a_cost_are_recorded_when_the_study_ends(tmp_path):
  program = make_program(tmp_path, ["a"], cost="slow")
  program.run(time_limit=1.5)
  assert [(r["case"]["row"], r["flops"]) for r in results(tmp_path)] == [("a", None)]


def test_missing_metric_is_a_failure(tmp_path):
  program = stub_study.make_program(tmp_path, ["a"])
  object.__setattr__(program.remaining[0].study, "metric", "AP")
  program.run()
  assert "no metric 'AP'; it has accuracy" in program.failures["a, seed 0"]


@pytest.mark.parametrize("name", ["settings.json", "overrides.yaml", "cost.json", "seed0.log"])
def test_nothing_is_written_through_planted_links(tmp_path, name):
  outside = tmp_path / "outside"
  outside.write_text("kept")
  row = tmp_path / "out" / "a"
  row.mkdir(parents=True)
  (row / name).symlink_to(outside)
  with pytest.raises(UserError, match=rf"{name} is a link to .*outside, which the study would"):
    make_program(tmp_path, ["a"]).run()
  (row / name).unlink()
  os.mkfifo(row / name)
  with pytest.raises(UserError, match=rf"{name} is a pipe or a device"):
    make_program(tmp_path, ["a"]).run()
  assert outside.read_text() == "kept"


@pytest.mark.parametrize("content", ["[]", "{}", '{"flops": {"mac": "2"}}', "[" * 100_000, ""])
def test_costs_of_other_content_are_counted_again(tmp_path, content):
  row = tmp_path / "out" / "a"
  row.mkdir(parents=True)
  (row / "cost.json").write_text(content)
  make_program(tmp_path, ["a"]).run()
  assert by_run(tmp_path)["a", 0]["flops"]["mac"] == 2000
