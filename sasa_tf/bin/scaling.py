"""Measures how training scales over the GPUs of this host: images/s on 1, 2, 4, ... of them.

  python -m sasa_tf.bin.scaling
  python -m sasa_tf.bin.scaling --num_logical_cpus=2 --model_id=26 --image_size=32 --batch_size=4

Each replica gets the same batch (weak scaling), which lies on its device already. The step is that
of the train program. Without GPUs, --num_logical_cpus is a dry run whose times mean nothing.
"""

from __future__ import annotations

import faulthandler
import re
import shlex
import sys

from absl import flags

from sasa_tf.bin import program
from sasa_tf.errors import UserError

FLAGS = flags.FLAGS

flags.DEFINE_list("replicas", [], "By default 1, 2, 4, ... up to all GPUs.")
flags.DEFINE_list("models", ["conv", "conv_stem+attention"], "Of these two.")
flags.DEFINE_list(
  "reductions",
  ["between"],
  "Of gradients: between two programs of XLA; or none, to see what the reduction costs.",
)
flags.DEFINE_integer("model_id", 50, "26, 38 or 50 layers.")
flags.DEFINE_integer("image_size", 224, "Pixels.", lower_bound=1)
flags.DEFINE_integer("batch_size", 128, "Images a replica.", lower_bound=1)
flags.DEFINE_enum("dtype", "bfloat16", ["bfloat16", "float32"], "bfloat16: mixed precision.")
flags.DEFINE_integer("steps", 100, "Steps of a round.", lower_bound=1)
flags.DEFINE_integer("rounds", 3, "Rounds after the warm-up.", lower_bound=1)
flags.DEFINE_float(
  "buffer_mib", None, "Most MiB of gradients in a buffer; 0 for a buffer each, all in one if unset."
)
flags.DEFINE_integer(
  "time_limit", 0, "Seconds after which the program ends wherever it is; 0 for none.", lower_bound=0
)
flags.DEFINE_integer("num_logical_cpus", 0, "Replicas on the processor.", lower_bound=0)
flags.DEFINE_string("output", None, "File of JSON lines to add the results to.")


def main(argv: list[str]) -> None:
  """Measures and prints."""
  program.check_no_positional_args(argv)
  if FLAGS.time_limit:
    faulthandler.dump_traceback_later(FLAGS.time_limit, exit=True)
  for count in FLAGS.replicas:
    if not re.fullmatch(r"[1-9]\d*", count):
      raise UserError(f"--replicas: expected positive integers; received {count!r}.")

  from sasa_tf.training import strategy

  if FLAGS.num_logical_cpus:
    strategy.create_logical_cpus(FLAGS.num_logical_cpus)

  from sasa_tf import registry_imports  # noqa: F401
  from sasa_tf.benchmarks.measurement import environment
  from sasa_tf.benchmarks.scaling import cases, measure

  devices = cases.find_devices()
  cases = cases.plan(
    FLAGS.models,
    [int(count) for count in FLAGS.replicas] or cases.default_replicas(len(devices)),
    FLAGS.reductions,
    devices,
    batch_size=FLAGS.batch_size,
    image_size=FLAGS.image_size,
    model_id=FLAGS.model_id,
    dtype=FLAGS.dtype,
  )
  measure.measure_all(
    cases,
    devices,
    steps=FLAGS.steps,
    rounds=FLAGS.rounds,
    max_bucket_bytes=None if FLAGS.buffer_mib is None else int(FLAGS.buffer_mib * 2**20),
    output=FLAGS.output,
    facts={
      "buffer_mib": FLAGS.buffer_mib,
      "environment": environment.describe_environment(),
      "command": shlex.join(["python", "-m", "sasa_tf.bin.scaling", *sys.argv[1:]]),
    },
  )


def run() -> None:
  """Console script."""
  program.run(main)


if __name__ == "__main__":
  run()
