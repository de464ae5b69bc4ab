"""The train program, whose group of replicas fails at a step.

python -m tests.training.failing_replicas_program STEP ARGUMENTS...

As if NCCL had reported an error: the group is aborted at the end of the loop that reaches the step.
"""

import sys

from sasa_tf.bin import train
from sasa_tf.training import trainer


def main(step, *arguments):
  original = trainer.Trainer.train_loop_begin

  def train_loop_begin(self):
    original(self)
    if self.global_step.numpy() >= step:
      self._group.abort("NCCL: a cable was pulled out")

  trainer.Trainer.train_loop_begin = train_loop_begin
  sys.argv = [sys.argv[0], *arguments]
  train.run()


if __name__ == "__main__":
  main(int(sys.argv[1]), *sys.argv[2:])
