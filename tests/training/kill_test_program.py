"""Kills a training repeatedly, and checks the step that it resumes from.

python -m tests.training.kill_test_program --kills=20 --directory=DIR

Half of the kills are at a random time, the others at a random time while a checkpoint is being
written. Half of the processes write checkpoints asynchronously. After each kill there must be a
valid checkpoint, at most one interval before the last step that the process reported. The next
process must resume from it, and the last process must complete.
"""

from __future__ import annotations

import os
import pathlib
import random
import re
import signal
import subprocess
import sys
import threading
import time

from absl import app, flags

LOOP, INTERVAL = 2, 4
_ENDLESS = 1_000_000  # steps


def train(arguments):
  """In the killed process: runs `sasa_tf.bin.train` and reports every loop of steps."""
  from sasa_tf.bin import train as program
  from sasa_tf.training import progress

  begin, on_train = progress.TrainingProgress.begin, progress.TrainingProgress.on_train

  # To the original standard output, because the run discards what Orbit prints.
  def reporting_begin(self):
    print(f"resumes at step {self.current_step()}", file=sys.__stdout__, flush=True)
    begin(self)

  def reporting_on_train(self, output):
    on_train(self, output)
    print(f"reached step {self.current_step()}", file=sys.__stdout__, flush=True)

  progress.TrainingProgress.begin = reporting_begin
  progress.TrainingProgress.on_train = reporting_on_train
  sys.argv = [sys.argv[0], *arguments]
  program.run()


class Training:
  """A process that trains, and the steps that it reports."""

  def __init__(self, data, model_dir, steps, asynchronous):
    from tests.training import tiny_run

    no = "" if asynchronous else "no"
    overrides = tiny_run.overrides(data, steps=steps, loop=LOOP, interval=INTERVAL)
    self.first_step = self.last_step = None
    self.process = subprocess.Popen(
      [
        *(sys.executable, "-m", "tests.training.kill_test_program", "train"),
        f"--experiment={tiny_run.EXPERIMENT}",
        "--mode=train",
        f"--model_dir={model_dir}",
        f"--{no}enable_async_checkpointing",
        f"--params_override={overrides}",
      ],
      stdout=subprocess.PIPE,
      stderr=subprocess.STDOUT,
      text=True,
    )
    self.printed = []
    self._reader = threading.Thread(target=self._read, daemon=True)
    self._reader.start()

  def _read(self):
    for line in self.process.stdout:
      self.printed.append(line)
      report = re.match(r"(resumes at|reached) step (\d+)", line)
      if report and report[1] == "reached":
        self.last_step = int(report[2])
      elif report:
        self.first_step = int(report[2])

  def wait_for(self, condition, seconds=300):
    """Waits for the condition; raises if the process ends before."""
    start = time.monotonic()
    while not condition():
      if self.process.poll() is not None or time.monotonic() - start > seconds:
        self.process.kill()
        raise AssertionError("".join(self.printed))
      time.sleep(0.0005)

  def join(self):
    """Waits until the output of an ended process is read."""
    self._reader.join()

  def kill(self):
    """Kills it as a failing machine would."""
    self.process.send_signal(signal.SIGKILL)
    self.process.wait()
    self.join()


def _being_written(model_dir):
  return [name for name in os.listdir(model_dir) if name.endswith("_temp") or "tempstate" in name]


def kill_and_resume(directory, kills, seed=0):
  """Returns a report line for each kill and one for the end; raises if a check fails."""
  from sasa_tf.training.resilience import checkpoints
  from tests.training import tiny_run

  rng = random.Random(seed)
  data = tiny_run.write_data(directory / "data")
  model_dir = directory / "run"
  lines, expected = [], 0
  for number in range(kills):
    training = Training(data, model_dir, _ENDLESS, asynchronous=number % 4 < 2)
    training.wait_for(lambda training=training: training.last_step is not None)
    time.sleep(rng.uniform(0, 4))
    if number % 2:
      training.wait_for(lambda: _being_written(model_dir))
      time.sleep(rng.uniform(0, 0.003))
    training.kill()
    unfinished = _being_written(model_dir)
    assert training.first_step == expected, f"resumed at {training.first_step}, not at {expected}"
    last = checkpoints.latest_valid(str(model_dir))
    assert last or training.last_step < INTERVAL, "no valid checkpoint"
    expected = checkpoints.step_of(last) if last else 0
    lost = training.last_step - expected
    assert lost <= INTERVAL, f"{lost} steps lost"
    lines.append(
      f"kill {number + 1}: resumed at step {training.first_step}, "
      f"killed after step {training.last_step}"
      f"{', while writing a checkpoint' if unfinished else ''}; valid: step {expected}"
    )
    print(lines[-1], flush=True)
  end = expected + 10
  training = Training(data, model_dir, end, asynchronous=True)
  assert training.process.wait(timeout=300) == 0, "".join(training.printed)
  training.join()
  assert training.first_step == expected
  assert checkpoints.latest_valid(str(model_dir)).endswith(f"ckpt-{end}")
  assert not _being_written(model_dir)
  lines.append(f"last process: resumed at step {expected}, reached step {end}, the last")
  print(lines[-1], flush=True)
  return lines


def main(argv):
  """Kills and resumes --kills times."""
  del argv
  kill_and_resume(pathlib.Path(flags.FLAGS.directory), flags.FLAGS.kills, flags.FLAGS.seed)


if __name__ == "__main__":
  if sys.argv[1:2] == ["train"]:
    train(sys.argv[2:])
  else:
    flags.DEFINE_integer("kills", 20, "Number of kills.")
    flags.DEFINE_integer("seed", 0, "Seed of the random times.")
    flags.DEFINE_string("directory", None, "Empty directory to work in.", required=True)
    app.run(main)
