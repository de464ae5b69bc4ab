"""Kills a training again and again, and sees what it goes on from.

python -m tests.training.kill_test_program --kills=20 --directory=DIR

Half of the kills come at a random moment; half while a checkpoint is being written, at a random
moment of that. Some processes write checkpoints beside the training, the others within. After
each kill a whole checkpoint must be there, at most one interval before the last step that
the process told of; the next process must begin at it, and the last one must reach its end.
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
_FAR = 1_000_000  # steps that no process reaches


def train(arguments):
  """In the killed process: `sasa_tf.bin.train`, which tells of every loop of steps."""
  from sasa_tf.bin import train as program
  from sasa_tf.training import progress

  begin, on_train = progress.TrainingProgress.begin, progress.TrainingProgress.on_train

  # The run discards what Orbit prints, and with it what is printed here.
  def told_begin(self):
    print(f"begins at step {self._current_step()}", file=sys.__stdout__, flush=True)
    begin(self)

  def told_on_train(self, output):
    on_train(self, output)
    print(f"reached step {self._current_step()}", file=sys.__stdout__, flush=True)

  progress.TrainingProgress.begin, progress.TrainingProgress.on_train = told_begin, told_on_train
  sys.argv = [sys.argv[0], *arguments]
  program.run()


class Training:
  """A process that trains, and what it tells."""

  def __init__(self, data, model_dir, steps, asynchronous):
    from tests.training import tiny_run

    no = "" if asynchronous else "no"
    overrides = tiny_run.overrides(data, steps=steps, loop=LOOP, interval=INTERVAL)
    self.begun = self.reached = None
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
      told = re.match(r"(begins at|reached) step (\d+)", line)
      if told and told[1] == "reached":
        self.reached = int(told[2])
      elif told:
        self.begun = int(told[2])

  def wait_for(self, condition, seconds=300):
    """Returns as soon as the condition holds; fails if the process ends before."""
    start = time.monotonic()
    while not condition():
      if self.process.poll() is not None or time.monotonic() - start > seconds:
        self.process.kill()
        raise AssertionError("".join(self.printed))
      time.sleep(0.0005)

  def join(self):
    """Waits until all is read that an ended process told."""
    self._reader.join()

  def kill(self):
    """Ends it as a failing machine would."""
    self.process.send_signal(signal.SIGKILL)
    self.process.wait()
    self.join()


def _being_written(model_dir):
  return [name for name in os.listdir(model_dir) if name.endswith("_temp") or "tempstate" in name]


def kill_and_resume(directory, kills, seed=0):
  """Returns a line of report for each kill and one for the end; raises where a promise breaks."""
  from sasa_tf.training.resilience import checkpoints
  from tests.training import tiny_run

  chance = random.Random(seed)
  data = tiny_run.write_data(directory / "data")
  model_dir = directory / "run"
  lines, expected = [], 0
  for number in range(kills):
    training = Training(data, model_dir, _FAR, asynchronous=number % 4 < 2)
    training.wait_for(lambda training=training: training.reached is not None)
    time.sleep(chance.uniform(0, 4))
    if number % 2:
      training.wait_for(lambda: _being_written(model_dir))
      time.sleep(chance.uniform(0, 0.003))
    training.kill()
    unfinished = _being_written(model_dir)
    assert training.begun == expected, f"began at {training.begun}, not at {expected}"
    last = checkpoints.latest_valid(str(model_dir))
    assert last or training.reached < INTERVAL, "no whole checkpoint"
    expected = checkpoints.step_of(last) if last else 0
    lost = training.reached - expected
    assert lost <= INTERVAL, f"{lost} steps lost"
    lines.append(
      f"kill {number + 1}: began at step {training.begun}, killed after step {training.reached}"
      f"{', while writing a checkpoint' if unfinished else ''}; whole: step {expected}"
    )
    print(lines[-1], flush=True)
  end = expected + 10
  training = Training(data, model_dir, end, asynchronous=True)
  assert training.process.wait(timeout=300) == 0, "".join(training.printed)
  training.join()
  assert training.begun == expected
  assert checkpoints.latest_valid(str(model_dir)).endswith(f"ckpt-{end}")
  assert not _being_written(model_dir)
  lines.append(f"last process: began at step {expected}, reached step {end}, the last")
  print(lines[-1], flush=True)
  return lines


def main(argv):
  """Kills as often as asked for."""
  del argv
  kill_and_resume(pathlib.Path(flags.FLAGS.directory), flags.FLAGS.kills, flags.FLAGS.seed)


if __name__ == "__main__":
  if sys.argv[1:2] == ["train"]:
    train(sys.argv[2:])
  else:
    flags.DEFINE_integer("kills", 20, "How often to kill.")
    flags.DEFINE_integer("seed", 0, "Of the moments.")
    flags.DEFINE_string("directory", None, "Empty directory to work in.", required=True)
    app.run(main)
