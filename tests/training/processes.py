"""Runs trainings in separate processes, as a user starts them."""

import os
import subprocess
import sys

from tests.training import tiny_run


def command(data, model_dir, *flags, mode="train", **arguments):
  """Returns the command line of a tiny training; for arguments see `tiny_run.overrides`."""
  return [
    sys.executable,
    "-m",
    "sasa_tf.bin.train",
    f"--experiment={tiny_run.EXPERIMENT}",
    f"--mode={mode}",
    f"--model_dir={model_dir}",
    f"--params_override={tiny_run.overrides(data, **arguments)}",
    *flags,
  ]


def finish(command, **environment):
  """Runs the command; returns its exit status and output."""
  done = subprocess.run(
    command,
    env={**os.environ, **environment},
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
    timeout=600,
  )
  return done.returncode, done.stdout
