"""Runs a study: trains what is not finished, and records each run that ends."""

from __future__ import annotations

import contextlib
import os
import pathlib
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from sasa_tf.errors import PreemptedError, UserError
from sasa_tf.outputs.json_lines import check_json_lines
from sasa_tf.reporting import ProgressBar, format_metrics
from sasa_tf.studies import gpus, records, runs
from sasa_tf.studies.gpus import Gpu
from sasa_tf.studies.runs import RESULTS_FILE, Commands, Run
from sasa_tf.studies.scheduler import Job, Outcome, Scheduler
from sasa_tf.studies.study_file import Study

_STATUS_SECONDS = 10.0


def plan_runs(
  study: Study,
  output: str | os.PathLike,
  *,
  rows: Sequence[str] | None = None,
  seeds: Sequence[int] | None = None,
  params_override: str = "",
  num_gpus: int = 0,
  order: str = "seeds",
) -> list[Run]:
  """Returns the selected runs of a study.

  Args:
    study: to run.
    output: directory of all runs.
    rows: names of rows; None for all.
    seeds: instead of those of the rows; None for the latter.
    params_override: overrides of all runs, as of `train --params_override`.
    num_gpus: of each training: 1, or 0 for the CPU.
    order: "seeds" for all first seeds before all second ones; "rows" for all seeds of the first row
      before those of the second one.

  Raises:
    UserError: there is no such row, or no run.
  """
  planned = [
    Run(study, row, seed, pathlib.Path(output), params_override, num_gpus)
    for row, seed in study.select(rows, seeds)
  ]
  if order == "rows":
    planned.sort(key=lambda run: study.rows.index(run.row))
  if not planned:
    raise UserError("--rows or --seeds is empty, so that nothing would run. Omit the flag for all.")
  return planned


def finished_results(results: pathlib.Path, planned: Sequence[Run]) -> list[Run]:
  """Returns the planned runs that a result file lists as finished.

  Raises:
    UserError: one of them finished with other settings.
  """
  if not results.exists():
    return []
  digests = {
    tuple(record["case"].items()): record.get("digest")
    for record in records.read_results([results])
    if record["status"] == records.FINISHED
  }
  finished = [run for run in planned if tuple(run.case().items()) in digests]
  changed = [run.name for run in finished if digests[tuple(run.case().items())] != run.digest()]
  if changed:
    raise UserError(
      f"{results}: {'; '.join(changed[:3])}{' and others' * (len(changed) > 3)} finished with "
      "other settings. Use another --output, or restore the settings."
    )
  return finished


class StudyProgram:
  """Trains the runs of a study and appends a line to results.jsonl for each one that ends."""

  def __init__(
    self,
    planned: Sequence[Run],
    found: Sequence[Gpu],
    *,
    processes_per_gpu: int,
    train_command: Commands = runs.train_command,
    cost_command: Commands = runs.cost_command,
    missing_gpus: Callable[[Sequence[Gpu]], list[Gpu]] = gpus.missing_gpus,
    grace_seconds: float = 120.0,
    start_interval: float = 0.0,
    pin_cores: bool = False,
  ):
    """Checks what earlier calls finished.

    Args:
      planned: runs of one study in one output directory.
      found: GPUs to use; without any, the CPU.
      processes_per_gpu: number of runs at a time on a GPU, or on the CPU.
      train_command: returns the command of a training.
      cost_command: returns the command that writes `Run.cost_file`.
      missing_gpus: returns those of some GPUs that do not exist any more.
      grace_seconds: time for the trainings to save on SIGTERM.
      start_interval: seconds between the starts of two runs on GPUs, at least.
      pin_cores: whether each run has an equal share of the cores for itself.

    Raises:
      UserError: the output directory holds results with other settings.
    """
    self._planned, self._processes_per_gpu = list(planned), processes_per_gpu
    self._results = check_json_lines(planned[0].output / RESULTS_FILE)
    done = finished_results(self._results, planned)
    self.remaining = [run for run in planned if run not in done]
    self.failures: dict[str, str] = {}
    self._train_command, self._cost_command = train_command, cost_command
    self._unrecorded: dict[str, tuple[Run, str]] = {}  # trained, but their cost is not counted yet
    self._uncounted: dict[str, Run] = {}
    self._progress: ProgressBar | None = None
    self._next_status = 0.0
    self._scheduler = Scheduler(
      found,
      processes_per_gpu=processes_per_gpu,
      on_end=self._on_end,
      on_event=self._write,
      on_poll=self._show_status,
      grace_seconds=grace_seconds,
      missing_gpus=missing_gpus,
      start_interval=start_interval,
      pin_cores=pin_cores,
    )

  def run(self, time_limit: float | None = None) -> None:
    """Trains all runs that are not finished.

    Args:
      time_limit: seconds after which the trainings save and end; None for no limit.

    Raises:
      PreemptedError: SIGTERM, SIGINT or the time limit ended the study.
    """
    for run in self.remaining:
      run.prepare()
    done = len(self._planned) - len(self.remaining)
    with ProgressBar(len(self._planned), "study", unit="run", initial=done) as self._progress:
      if done:
        self._write(f"{done} of {len(self._planned)} runs are already finished")
      with self._stop_on_signals():
        try:
          self._scheduler.run(self._jobs(), time_limit)
        except PreemptedError as stopped:
          self._uncounted.clear()
          for run, device in list(self._unrecorded.values()):  # without the cost of their models
            self._finish(run, device)
          if not self.remaining:
            return
          raise PreemptedError(
            f"{stopped}; {self._finished()} of {len(self._planned)} runs are finished. To resume, "
            "rerun the same command."
          ) from None

  def _finished(self) -> int:
    return len(self._planned) - len(self.remaining)

  def _jobs(self) -> list[Job]:
    self._uncounted = {}
    log, lock = runs.COST_JOB_FILES
    for run in self.remaining:
      if runs.read_cost(run) is None:
        self._uncounted.setdefault(run.row.name, run)
    jobs = [
      Job(
        f"cost of {name}",
        self._cost_command(run),
        run.row_dir / log,
        lock=run.row_dir / lock,
        needs_gpu=False,
      )
      for name, run in self._uncounted.items()
    ]
    for run in list(self.remaining):
      log = run.read_log()
      if log.is_finished and log.series("evaluation"):  # trained by an earlier call
        self._finish(run, log.begin.get("device", "unknown"))
      else:
        jobs.append(Job(run.name, self._train_command(run), run.log, lock=run.lock))
    return jobs

  def _on_end(self, job: Job, outcome: Outcome) -> None:
    if not job.needs_gpu:
      name = job.name.removeprefix("cost of ")
      self._uncounted.pop(name, None)
      if outcome.error:
        self._write(f"{job.name} is unknown: {outcome.error}; see {job.log}")
      for run, device in list(self._unrecorded.values()):
        if run.row.name == name:
          self._finish(run, device)
      return
    (run,) = [run for run in self.remaining if run.name == job.name]
    error = outcome.error
    if error is None and run.study.metric not in _last_metrics(run):
      error = (
        f"the last evaluation has no metric {run.study.metric!r}; it has "
        f"{', '.join(_last_metrics(run)) or 'none'}"
      )
    if error is None:
      self._finish(run, outcome.device)
    else:
      self.failures[run.name] = error
      self._record(run, error, outcome.device)
      self._write(f"failed {run.name}: {error}; see {run.log}")

  def _finish(self, run: Run, device: str) -> None:
    """Records a finished run as soon as the cost of its model is known."""
    if run.row.name in self._uncounted:
      self._unrecorded[run.name] = (run, device)
      return
    self._unrecorded.pop(run.name, None)
    self._record(run, None, device)
    self.remaining.remove(run)
    self._write(f"finished {run.name}: {format_metrics(_last_metrics(run))}")
    if self._progress is not None:
      self._progress.advance()

  def _record(self, run: Run, error: str | None, device: str) -> None:
    names = [row.name for row in run.study.rows]
    record = records.make_record(
      run,
      error=error,
      cost=runs.read_cost(run),
      device=device,
      processes_per_gpu=self._processes_per_gpu,
      position=names.index(run.row.name),
    )
    records.append(self._results, record)

  def _show_status(self, running: list[Job]) -> None:
    now = time.monotonic()
    if now < self._next_status or self._progress is None:
      return
    self._next_status = now + _STATUS_SECONDS
    names = {job.name for job in running}
    steps = []
    for run in self.remaining:
      if run.name in names:
        log = run.read_log()
        steps.append(f"{run.name}: step {log.last_step}/{log.begin.get('train_steps', '?')}")
    if steps:
      status = f"{self._finished()}/{len(self._planned)} runs; {'; '.join(steps)}"
      self._progress.set_status(status)

  def _write(self, text: str) -> None:
    if self._progress is not None:
      self._progress.write(text)

  @contextlib.contextmanager
  def _stop_on_signals(self) -> Iterator[None]:
    """Stops the scheduler on SIGTERM or SIGINT; a second one ends this program at once."""

    def handle(number: int, frame: Any) -> None:
      signal.signal(number, previous[signal.Signals(number)])
      self._scheduler.stop(f"{signal.Signals(number).name} received")

    numbers = (signal.SIGTERM, signal.SIGINT)
    previous = {number: signal.signal(number, handle) for number in numbers}
    try:
      yield
    finally:
      for number, handler in previous.items():
        signal.signal(number, handler)


def _last_metrics(run: Run) -> dict[str, float]:
  evaluations = run.read_log().series("evaluation")
  return evaluations[-1]["metrics"] if evaluations else {}
