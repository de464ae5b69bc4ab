"""Runs child processes on the GPUs of this host, a few on each; a failure does not stop others."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from typing import IO

from sasa_tf.errors import PreemptedError
from sasa_tf.studies import gpus
from sasa_tf.studies.gpus import Gpu
from sasa_tf.studies.locks import lock_file

POLL_SECONDS = 0.2
GPU_CHECK_SECONDS = 30.0
# A run is started at most this often; further starts are for GPUs that disappear.
MAX_ATTEMPTS = 3
# Failures in a row, on a GPU that nvidia-smi still lists, after which it is not used.
_MAX_GPU_FAILURES = 2
_LOG_TAIL_BYTES = 20_000


@dataclasses.dataclass
class Job:
  """A command to run.

  Attributes:
    name: for messages.
    command: the command line.
    log: file that its standard output and error are appended to.
    lock: file to lock while the command runs; None for none.
    needs_gpu: whether it runs on a GPU if there are any; otherwise on the CPU, beside the others.
    attempts: number of times that it was started.
  """

  name: str
  command: Sequence[str]
  log: pathlib.Path
  lock: pathlib.Path | None = None
  needs_gpu: bool = True
  attempts: int = 0


@dataclasses.dataclass(frozen=True)
class Outcome:
  """How a job ended.

  Attributes:
    error: the last line of its error; None if it succeeded.
    device: name of the GPU, or "CPU".
  """

  error: str | None
  device: str


@dataclasses.dataclass(eq=False)
class _Slot:
  """Runs one job at a time. `gpu` is None on the CPU, `cores` if it may use all of them."""

  gpu: Gpu | None
  cores: frozenset[int] | None = None

  @property
  def device(self) -> str:
    return self.gpu.name if self.gpu else "CPU"


@dataclasses.dataclass(eq=False)
class _Child:
  """A job that runs."""

  job: Job
  slot: _Slot
  process: subprocess.Popen
  lock: IO[bytes] | None


class Scheduler:
  """Runs jobs on slots until all ended, or until it is asked to stop.

  A job that fails because its GPU disappeared, or cannot be used, is started again on another one.
  """

  def __init__(
    self,
    found: Sequence[Gpu],
    *,
    processes_per_gpu: int,
    on_end: Callable[[Job, Outcome], None],
    on_event: Callable[[str], None],
    on_poll: Callable[[list[Job]], None] = lambda running: None,
    grace_seconds: float = 120.0,
    missing_gpus: Callable[[Sequence[Gpu]], list[Gpu]] = gpus.missing_gpus,
    start_interval: float = 0.0,
    pin_cores: bool = False,
  ):
    """Creates the slots.

    Args:
      found: the GPUs; without any, jobs run one at a time on the CPU.
      processes_per_gpu: number of jobs on a GPU at a time; without GPUs, on the CPU.
      on_end: called with each job that ended, unless it will be started again.
      on_event: called with messages.
      on_poll: called repeatedly with the running jobs.
      grace_seconds: time for the children to save and exit before they are killed.
      missing_gpus: returns those of some GPUs that do not exist any more.
      start_interval: seconds between the starts of two jobs on GPUs, at least.
      pin_cores: whether each job has an equal share of the cores for itself.
    """
    devices: Sequence[Gpu | None] = found or [None]
    self._slots = [_Slot(device) for _ in range(processes_per_gpu) for device in devices]
    if pin_cores:
      for slot, cores in zip(self._slots, share_cores(len(self._slots)), strict=True):
        slot.cores = cores
    self._start_interval, self._next_start = start_interval, 0.0
    # Beside the jobs on GPUs, which leave most cores idle; beside one on the CPU, a single one.
    cpu_jobs = max(1, min(4, (os.cpu_count() or 1) // 4)) if found else 1
    self._cpu_slots = [_Slot(None) for _ in range(cpu_jobs)]
    self._on_end, self._on_event, self._on_poll = on_end, on_event, on_poll
    self._grace_seconds, self._missing_gpus = grace_seconds, missing_gpus
    self._gpu_failures: dict[str, int] = {}
    self._retired: set[str] = set()
    self._missing: set[Gpu] = set()
    self._next_check = time.monotonic() + GPU_CHECK_SECONDS
    self._stop_reason: str | None = None
    self._queue: list[Job] = []
    self._children: list[_Child] = []

  def stop(self, reason: str) -> None:
    """Makes `run` end the children with SIGTERM and raise `PreemptedError`."""
    self._stop_reason = self._stop_reason or reason

  def run(self, jobs: Sequence[Job], time_limit: float | None = None) -> None:
    """Runs the jobs, in order.

    Args:
      jobs: to run.
      time_limit: seconds after which to stop; None for no limit.

    Raises:
      PreemptedError: `stop` was called, or the time limit is over.
    """
    self._queue = list(jobs)
    limit = None if time_limit is None else time.monotonic() + time_limit
    try:
      while self._queue or self._children:
        if limit is not None and time.monotonic() >= limit:
          self.stop(f"the time limit of {time_limit:g} seconds is over")
        if self._stop_reason:
          self._end_children()
          raise PreemptedError(self._stop_reason)
        self._start_jobs()
        self._kill_jobs_of_missing_gpus()
        self._collect()
        self._on_poll([child.job for child in self._children])
        time.sleep(POLL_SECONDS)
    finally:
      for child in list(self._children):
        child.process.kill()  # an error of this program; the children must not outlive it
        self._release(child)

  def _start_jobs(self) -> None:
    usable = [slot for slot in self._slots if not slot.gpu or slot.gpu.id not in self._retired]
    if not usable:
      jobs, self._queue = self._queue, [job for job in self._queue if not job.needs_gpu]
      for job in jobs:
        if job.needs_gpu:
          self._on_end(job, Outcome("not started: no GPU of this host works any more", "none"))
    for needs_gpu, slots in ((True, usable), (False, self._cpu_slots)):
      for slot in slots:
        waiting = [job for job in self._queue if job.needs_gpu == needs_gpu]
        if waiting and all(child.slot is not slot for child in self._children):
          if needs_gpu and time.monotonic() < self._next_start:
            break
          self._queue.remove(waiting[0])
          self._start(slot, waiting[0])
          if needs_gpu:
            self._next_start = time.monotonic() + self._start_interval

  def _start(self, slot: _Slot, job: Job) -> None:
    job.log.parent.mkdir(parents=True, exist_ok=True)
    lock = None
    if job.lock is not None:
      lock = lock_file(job.lock)
      if lock is None:
        self._on_end(job, Outcome("another process is running it", slot.device))
        return
    job.attempts += 1
    environment = {
      **os.environ,
      "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
      "CUDA_VISIBLE_DEVICES": slot.gpu.id if slot.gpu else "-1",
      "TF_FORCE_GPU_ALLOW_GROWTH": "true",
      "PYTHONUNBUFFERED": "1",
    }
    with job.log.open("ab") as log:
      log.write(f"\n$ {' '.join(job.command)}\n".encode())
      log.flush()
      # In its own session, so that SIGINT of the terminal reaches this program only. The lock is
      # inherited, so that it is held until the child ends even if this program is killed.
      process = subprocess.Popen(
        job.command,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        env=environment,
        start_new_session=True,
        pass_fds=() if lock is None else (lock.fileno(),),
      )
    if slot.cores is not None:
      with contextlib.suppress(ProcessLookupError):  # it ended already
        os.sched_setaffinity(process.pid, slot.cores)
    self._children.append(_Child(job, slot, process, lock))
    self._on_event(f"started {job.name} on {slot.device}")

  def _collect(self) -> None:
    for child in list(self._children):
      status, slot = child.process.poll(), child.slot
      if status is None:
        continue
      self._release(child)
      if status == 0:
        if slot.gpu:
          self._gpu_failures[slot.gpu.id] = 0
        self._on_end(child.job, Outcome(None, slot.device))
      else:
        self._handle_failure(slot, child.job, _describe_failure(status, child.job.log))

  def _handle_failure(self, slot: _Slot, job: Job, error: str) -> None:
    retry = slot.gpu is not None and self._blames_gpu(slot.gpu, error)
    if retry and job.attempts < MAX_ATTEMPTS:
      self._on_event(f"{job.name} will be started again: {error}")
      self._queue.insert(0, job)
    else:
      self._on_end(job, Outcome(error, slot.device))

  def _blames_gpu(self, gpu: Gpu, error: str) -> bool:
    """Returns whether a job failed because of its GPU, which is not used again if it is lost."""
    lost = bool(self._missing_gpus([gpu]))
    if not lost and not gpus.GPU_LOST.search(error):
      return False
    failures = self._gpu_failures[gpu.id] = self._gpu_failures.get(gpu.id, 0) + 1
    if (lost or failures >= _MAX_GPU_FAILURES) and gpu.id not in self._retired:
      self._retired.add(gpu.id)
      self._on_event(f"{gpu.name} {'disappeared' if lost else 'fails repeatedly'}: not used again")
    return True

  def _kill_jobs_of_missing_gpus(self) -> None:
    """Kills jobs that would wait forever for a GPU that two checks did not find."""
    if time.monotonic() < self._next_check:
      return
    self._next_check = time.monotonic() + GPU_CHECK_SECONDS
    used = [child.slot.gpu for child in self._children if child.slot.gpu]
    missing = set(self._missing_gpus(used)) if used else set()
    for child in self._children:
      if child.slot.gpu in missing & self._missing:
        child.process.kill()
    self._missing = missing

  def _end_children(self) -> None:
    """Ends the children with SIGTERM, on which trainings save a checkpoint; kills them at last."""
    children = list(self._children)
    if children:
      self._on_event(f"{self._stop_reason}: waiting for {len(children)} processes to save")
    for child in children:
      child.process.send_signal(signal.SIGTERM)
    limit = time.monotonic() + self._grace_seconds
    for child in children:
      try:
        child.process.wait(max(0.0, limit - time.monotonic()))
      except subprocess.TimeoutExpired:
        child.process.kill()
        name, seconds = child.job.name, self._grace_seconds
        self._on_event(f"{name} did not end in {seconds:g} s and was killed")
      if self._release(child) == 0:
        self._on_end(child.job, Outcome(None, child.slot.device))

  def _release(self, child: _Child) -> int:
    """Waits for the end of a child, and returns its exit status."""
    status = child.process.wait()
    if child.lock is not None:
      child.lock.close()
    self._children.remove(child)
    return status


def share_cores(shares: int) -> list[frozenset[int]]:
  """Returns the cores that this process may use in `shares` parts of neighbors of equal size.

  With fewer cores than shares, each has one core, which it may share with others.
  """
  cores = sorted(os.sched_getaffinity(0))
  size = max(1, len(cores) // shares)
  return [frozenset(cores[i * size % len(cores) :][:size]) for i in range(shares)]


def _describe_failure(status: int, log: pathlib.Path) -> str:
  """Returns the last line of an error in a log: that of the program, or of a traceback."""
  with log.open("rb") as file:
    file.seek(max(0, log.stat().st_size - _LOG_TAIL_BYTES))
    text = file.read().decode(errors="replace").rpartition("\n$ ")[2]
  lines = [line.strip() for line in text.splitlines()[1:] if line.strip()]
  messages = [line for line in lines if line.startswith("error: ")]
  last = (messages or lines or ["no output"])[-1].removeprefix("error: ")
  ended = f"signal {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"
  return f"{last} ({ended})"
