"""Flags of the benchmark's target serving, and the measurement that they describe."""

from __future__ import annotations

import os
from collections.abc import Sequence

from absl import flags

from sasa_tf import extras
from sasa_tf.errors import UserError

FLAGS = flags.FLAGS

flags.DEFINE_list(
  "formats",
  [],
  "Serving: formats of the exported models, such as saved_model, saved_model/cpu_kernels, litert, "
  "onnx/int8. By default all in float32 whose packages are installed.",
)
flags.DEFINE_list(
  "exports",
  [],
  "Serving: directories of exported models (--output_dir of export) to measure, instead of exports "
  "of untrained networks. The first is the baseline.",
)
flags.DEFINE_list("devices", [], "Serving: cpu, gpu or both. By default both if there is a GPU.")
flags.DEFINE_float(
  "width_multiplier", 1.0, "Serving: factor of all channels of the networks.", lower_bound=0.0625
)

_OWN = ("formats", "exports", "devices", "width_multiplier")
_OF_OTHERS = ("modes", "shapes", "dtypes", "jit", "dilation_rate", "border", "plot", "overwrite")
_OF_NETWORKS = (
  "candidates",
  "model_id",
  "image_size",
  "width_multiplier",
  "num_heads",
  "kernel_size",
)
_MIN_RUN_SECONDS = 1.0
_BATCH_SIZES = (1, 8)


def reject_for_other_targets(target: str) -> None:
  """Raises a `UserError` if a flag of the target serving is given for another one."""
  if given := [name for name in _OWN if FLAGS[name].present]:
    raise UserError(
      f"--{given[0]} is a flag of --target=serving; received --target={target}. Remove one of them."
    )


def measure_served_models(batch_sizes: Sequence[int], command: str) -> None:
  """Measures what the flags describe.

  Args:
    batch_sizes: of --batch_sizes; () for the default.
    command: the command line, stored with the results.

  Raises:
    UserError: the flags are invalid, or nothing could be measured.
  """
  if given := [name for name in _OF_OTHERS if FLAGS[name].present]:
    raise UserError(
      f"--{given[0]} does not apply to --target=serving, which measures exported models as they "
      "are served. Remove the flag."
    )
  if FLAGS.exports and (given := [name for name in _OF_NETWORKS if FLAGS[name].present]):
    raise UserError(
      f"--{given[0]} describes networks to export; received --exports, whose models exist. Remove "
      "one of them."
    )
  if len(FLAGS.baselines) > 1:
    raise UserError(
      f"--baselines: --target=serving compares with one; received {', '.join(FLAGS.baselines)}."
    )
  extras.require("--target=serving", "official", "tf_keras", "PIL")

  from sasa_tf import registry_imports  # noqa: F401
  from sasa_tf.benchmarks.measurement.environment import set_threads
  from sasa_tf.benchmarks.serving import run
  from sasa_tf.benchmarks.serving.exports import Architecture
  from sasa_tf.benchmarks.serving.processes import Plan

  seconds = FLAGS.min_run_seconds
  threads = FLAGS.threads or len(os.sched_getaffinity(0))
  set_threads(threads)
  run.measure(
    run.ServingBenchmark(
      formats=FLAGS.formats,
      devices=FLAGS.devices,
      candidates=FLAGS.candidates,
      exports=FLAGS.exports,
      baseline=FLAGS.baselines[0] if FLAGS.baselines else None,
      architecture=Architecture(
        FLAGS.model_id,
        FLAGS.image_size,
        FLAGS.width_multiplier,
        FLAGS.num_heads,
        FLAGS.kernel_size,
      ),
      plan=Plan(
        batch_sizes or _BATCH_SIZES,
        threads,
        FLAGS.rounds,
        _MIN_RUN_SECONDS if seconds is None else seconds,
      ),
      memory=FLAGS.memory,
      output=FLAGS.output,
      command=command,
    )
  )
