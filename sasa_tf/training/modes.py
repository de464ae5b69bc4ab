"""What a run does in each of Model Garden's modes."""

from __future__ import annotations

from official.core import train_lib


def train_or_evaluate(runner: train_lib.OrbitExperimentRunner, mode: str) -> None:
  """As the runner's own `run`, which in the end traces the model once more to log its FLOPs.

  Args:
    runner: of the run.
    mode: Model Garden's.
  """
  trainer, controller = runner.params.trainer, runner.controller
  with runner.strategy.scope():
    if mode == "train":
      controller.train(steps=trainer.train_steps)
    elif mode == "train_and_eval":
      controller.train_and_evaluate(
        train_steps=trainer.train_steps,
        eval_steps=trainer.validation_steps,
        eval_interval=trainer.validation_interval,
      )
    elif mode == "eval":
      controller.evaluate(steps=trainer.validation_steps)
    else:
      runner.run()
