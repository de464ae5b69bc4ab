"""Runs `sasa_tf.bin.train`, and saves the final weights and metrics of this process.

python -m tests.training.worker_program FILE FLAGS...
"""

import sys

import numpy as np


def main(file, *flags):
  """Trains; then saves weights, first and last step and metrics to a .npz file."""
  from sasa_tf.bin import train
  from sasa_tf.training import progress, run

  results = {}
  begin, on_evaluate = progress.TrainingProgress.begin, progress.TrainingProgress.on_evaluate
  train_or_evaluate = run.train_or_evaluate

  def recorded_begin(self):
    results["first_step"] = self.current_step()
    begin(self)

  def recorded_on_evaluate(self, output):
    on_evaluate(self, output)
    results.update({f"metric/{name}": value for name, value in self.evaluation.items()})

  def recorded_train_or_evaluate(runner, mode):
    train_or_evaluate(runner, mode)
    results["last_step"] = runner.trainer.global_step.numpy()
    for index, weight in enumerate(runner.trainer.model.weights):
      results[f"weight/{index}"] = weight.numpy()
    np.savez(file, **results)

  progress.TrainingProgress.begin = recorded_begin
  progress.TrainingProgress.on_evaluate = recorded_on_evaluate
  run.train_or_evaluate = recorded_train_or_evaluate
  sys.argv = [sys.argv[0], *flags]
  train.run()


if __name__ == "__main__":
  main(*sys.argv[1:])
