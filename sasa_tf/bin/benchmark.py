"""Measures local attention beside the 3x3 convolution that it replaces, on a CPU or a GPU.

  python -m sasa_tf.bin.benchmark
  python -m sasa_tf.bin.benchmark --target=model --dtypes=bfloat16 --batch_sizes=64,256
  python -m sasa_tf.bin.benchmark --show=RESULTS.jsonl --plot=RESULTS.png
  python -m sasa_tf.bin.benchmark --compare=OLD.jsonl,NEW.jsonl

--target=op is the operation on q, k and v, layer the layer with its projections, model a ResNet:
its inference or, with forward_backward, a whole training step. Contestants run in turn. A run
repeats the step inside of one program, so often that calling the program costs nothing.

CUDA_VISIBLE_DEVICES= (empty) measures the CPU of a machine that has a GPU.
"""

from __future__ import annotations

import re
import shlex
import sys

from absl import flags

from sasa_tf.bin import program
from sasa_tf.errors import UserError

FLAGS = flags.FLAGS

flags.DEFINE_enum("target", "op", ["op", "layer", "model"], "What to measure.")
flags.DEFINE_list(
  "contestants",
  [],
  "Side by side: conv3x3, auto and the implementations; of models conv, conv_stem+attention, "
  "full_attention, and with an implementation conv_stem+attention/blocked. All by default.",
)
flags.DEFINE_list(
  "baseline",
  [],
  "Contestants that the others are compared with; reference and conv3x3, or conv, by default.",
)
flags.DEFINE_multi_enum(
  "modes",
  ["forward_backward"],
  ["forward", "forward_backward"],
  "Repeat for both. Backward means the gradients of all inputs, of a model a training step.",
)
flags.DEFINE_list(
  "shapes",
  ["56x56x64", "28x28x128", "14x14x256", "7x7x512"],
  "HxWxC of op and layer; by default those of ResNet's four groups at 224 pixels.",
)
flags.DEFINE_list("batch_sizes", [], "By default 2 on a CPU and 64 on a GPU.")
flags.DEFINE_list("dtypes", ["float32"], "Of float32, bfloat16, float16; of models mixed with it.")
flags.DEFINE_enum("jit", "on", ["on", "off", "both"], "Whether XLA compiles.")
flags.DEFINE_integer("num_heads", 8, "Heads of the attention.", lower_bound=1)
flags.DEFINE_integer("kernel_size", 7, "Window of the attention, odd.", lower_bound=1)
flags.DEFINE_integer("dilation_rate", 1, "Dilation of the attention.", lower_bound=1)
flags.DEFINE_enum("border", "zero", ["zero", "mask"], "What lies outside of the image.")
flags.DEFINE_integer("model_id", 50, "26, 38 or 50 layers; of target model.")
flags.DEFINE_integer("image_size", 224, "Pixels; of target model.", lower_bound=1)
flags.DEFINE_integer("rounds", 15, "Runs of each contestant.", lower_bound=1)
flags.DEFINE_float(
  "min_run_seconds",
  None,
  "A run takes this at least; 0.2 on a CPU, 0.1 on a GPU, 1 for models there, whose steps overlap "
  "with the host's work except for the first.",
  lower_bound=0,
)
flags.DEFINE_bool("memory", True, "Whether to measure peak memory.")
flags.DEFINE_integer("threads", 0, "Of an operation on the CPU; 0 for all cores.", lower_bound=0)
flags.DEFINE_string("output", None, "File of JSON lines to add the results to.")
flags.DEFINE_string("plot", None, "Picture of the results to write, .png for example.")
flags.DEFINE_string("show", None, "File of --output to print (and --plot) instead of measuring.")
flags.DEFINE_list("compare", [], "OLD.jsonl,NEW.jsonl to compare instead of measuring.")


def _shapes() -> list[tuple[int, int, int]]:
  if FLAGS.target == "model":
    return [(FLAGS.image_size, FLAGS.image_size, 3)]
  for shape in FLAGS.shapes:
    if not re.fullmatch(r"[1-9]\d*x[1-9]\d*x[1-9]\d*", shape):
      raise UserError(f"--shapes: expected HxWxC such as 56x56x64; received {shape!r}.")
  return [tuple(map(int, shape.split("x"))) for shape in FLAGS.shapes]


def _batch_sizes() -> list[int]:
  for size in FLAGS.batch_sizes:
    if not re.fullmatch(r"[1-9]\d*", size):
      raise UserError(f"--batch_sizes: expected positive integers; received {size!r}.")
  return [int(size) for size in FLAGS.batch_sizes]


def _min_run_seconds(gpu: bool) -> float:
  if FLAGS.min_run_seconds is not None:
    return FLAGS.min_run_seconds
  if not gpu:
    return 0.2
  return 1.0 if FLAGS.target == "model" else 0.1


def _measure() -> None:
  shapes, batch_sizes = _shapes(), _batch_sizes()

  from sasa_tf.benchmarks import run
  from sasa_tf.benchmarks.measurement import environment, measure
  from sasa_tf.benchmarks.workloads import candidates, cases

  unknown = set(FLAGS.dtypes) - set(cases.DTYPES)
  if unknown:
    raise UserError(
      f"--dtypes: expected some of {', '.join(cases.DTYPES)}; received {', '.join(unknown)}."
    )
  names = FLAGS.contestants or candidates.default_contestants(FLAGS.target)
  candidates.check_contestants(FLAGS.target, names)
  environment.set_threads(FLAGS.threads)
  gpu = environment.gpu_name() is not None
  run.measure(
    cases.case_groups(
      names,
      FLAGS.modes,
      batch_sizes or [64 if gpu else 2],
      shapes,
      FLAGS.dtypes,
      {"on": [True], "off": [False], "both": [True, False]}[FLAGS.jit],
      target=FLAGS.target,
      num_heads=FLAGS.num_heads,
      kernel_size=FLAGS.kernel_size,
      dilation_rate=FLAGS.dilation_rate,
      border=FLAGS.border,
      model_id=FLAGS.model_id if FLAGS.target == "model" else None,
    ),
    measure.Effort(
      rounds=FLAGS.rounds,
      min_run_seconds=_min_run_seconds(gpu),
      memory=FLAGS.memory,
    ),
    baselines=FLAGS.baseline,
    output=FLAGS.output,
    plot=FLAGS.plot,
    command=shlex.join(["python", "-m", "sasa_tf.bin.benchmark", *sys.argv[1:]]),
  )


def main(argv: list[str]) -> None:
  """Measures, or shows or compares what was measured."""
  program.check_no_positional_args(argv)
  if FLAGS.compare or FLAGS.show:
    from sasa_tf.benchmarks import run

    if FLAGS.compare:
      run.compare_files(FLAGS.compare)
    else:
      run.show(FLAGS.show, baselines=FLAGS.baseline, plot=FLAGS.plot)
  else:
    _measure()


def run() -> None:
  """Console script."""
  program.run(main)


if __name__ == "__main__":
  run()
