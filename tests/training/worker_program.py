"""`sasa_tf.bin.train`, which leaves in a file what this process has in the end.

python -m tests.training.worker_program FILE FLAGS...
"""

import sys

import numpy as np


def main(file, *flags):
  """Trains; then writes weights, first and last step and metrics to a .npz file."""
  from sasa_tf.bin import train
  from sasa_tf.training import modes, progress

  seen = {}
  begin, on_evaluate = progress.TrainingProgress.begin, progress.TrainingProgress.on_evaluate
  work = modes.train_or_evaluate

  def recorded_begin(self):
    seen["first_step"] = self._current_step()
    begin(self)

  def recorded_on_evaluate(self, output):
    on_evaluate(self, output)
    seen.update({f"metric/{name}": value for name, value in self.evaluation.items()})

  def recorded_work(runner, mode):
    work(runner, mode)
    seen["last_step"] = runner.trainer.global_step.numpy()
    for index, weight in enumerate(runner.trainer.model.weights):
      seen[f"weight/{index}"] = weight.numpy()
    np.savez(file, **seen)

  progress.TrainingProgress.begin = recorded_begin
  progress.TrainingProgress.on_evaluate = recorded_on_evaluate
  modes.train_or_evaluate = recorded_work
  sys.argv = [sys.argv[0], *flags]
  train.run()


if __name__ == "__main__":
  main(*sys.argv[1:])
