"""Measures how training scales over the GPUs of this host: images/s on 1, 2, 4, ... of them.

  python -m sasa_tf.bin.scaling
  python -m sasa_tf.bin.scaling --num_logical_cpus=2 --model_id=26 --image_size=32 --batch_size=4

The batch size per replica is constant (weak scaling), and the batch is already on the device. The
step is that of the train program. Without GPUs, --num_logical_cpus is a dry run whose times are
meaningless.
"""

from __future__ import annotations

import faulthandler
import re
import shlex
import sys

from absl import flags

from sasa_tf.bin import program
from sasa_tf.errors import UserError
from sasa_tf.outputs.json_lines import check_json_lines

program.require("official", "tf_keras")

FLAGS = flags.FLAGS

flags.DEFINE_list("replicas", [], "Numbers of devices. By default 1, 2, 4, ... up to all GPUs.")
flags.DEFINE_list("models", ["conv", "conv_stem+attention"], "Models to measure.")
flags.DEFINE_list(
  "all_reduce",
  ["in_program", "between_programs"],
  "All-reduce of the gradients: in_program (a single XLA program), between_programs (two), or none "
  "to measure its cost.",
)
flags.DEFINE_integer("model_id", 50, "ResNet depth: 26, 38 or 50.")
flags.register_validator("model_id", lambda depth: depth in (26, 38, 50), "expected 26, 38 or 50")
flags.DEFINE_integer("image_size", 224, "Image size in pixels.", 1, 65_500)
flags.DEFINE_integer("batch_size", 128, "Images per replica.", 1, 1_000_000)
flags.DEFINE_enum("dtype", "bfloat16", ["bfloat16", "float32"], "bfloat16 is mixed precision.")
flags.DEFINE_integer("steps", 100, "Steps per round.", 1, 2**31 - 1)
flags.DEFINE_integer("rounds", 3, "Rounds after the warm-up round.", 1, 1_000_000)
flags.DEFINE_float(
  "buffer_mib",
  None,
  "Maximum MiB of a gradient bucket; 0 for one bucket per gradient. By default all gradients "
  "are in one bucket.",
  lower_bound=0,
)
flags.DEFINE_integer(
  "time_limit", 0, "Seconds after which the program is stopped; 0 for no limit.", lower_bound=0
)
flags.DEFINE_integer("num_logical_cpus", 0, "Logical CPUs to use as replicas.", lower_bound=0)
flags.DEFINE_string("output", None, "JSON-lines file to append the results to.")


def main(argv: list[str]) -> None:
  """Measures the throughput and prints it."""
  program.check_no_positional_args(argv)
  if FLAGS.time_limit:
    faulthandler.dump_traceback_later(FLAGS.time_limit, exit=True)
  for count in FLAGS.replicas:
    if not re.fullmatch(r"[1-9]\d{0,5}", count):
      raise UserError(f"--replicas: expected positive integers; received {count!r}.")
  if FLAGS.output:
    check_json_lines(FLAGS.output)

  from sasa_tf.training import strategy

  if FLAGS.num_logical_cpus:
    strategy.create_logical_cpus(FLAGS.num_logical_cpus)

  from sasa_tf import registry_imports  # noqa: F401
  from sasa_tf.benchmarks.measurement import environment
  from sasa_tf.benchmarks.scaling import cases, measure

  devices = cases.find_devices()
  planned = cases.make_cases(
    FLAGS.models,
    [int(count) for count in FLAGS.replicas] or cases.default_replicas(len(devices)),
    FLAGS.all_reduce,
    devices,
    batch_size=FLAGS.batch_size,
    image_size=FLAGS.image_size,
    model_id=FLAGS.model_id,
    dtype=FLAGS.dtype,
  )
  measure.measure_all(
    planned,
    devices,
    steps=FLAGS.steps,
    rounds=FLAGS.rounds,
    max_bucket_bytes=None if FLAGS.buffer_mib is None else int(FLAGS.buffer_mib * 2**20),
    output=FLAGS.output,
    metadata={
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
