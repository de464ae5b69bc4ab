"""Measures local attention and the 3x3 convolution that it replaces, on a CPU or a GPU.

  python -m sasa_tf.bin.benchmark
  python -m sasa_tf.bin.benchmark --target=model --dtypes=bfloat16 --batch_sizes=64,256
  python -m sasa_tf.bin.benchmark --target=serving --threads=2
  python -m sasa_tf.bin.benchmark --target=serving --exports=runs/a/exported,runs/b/exported
  python -m sasa_tf.bin.benchmark --show=RESULTS.jsonl --plot=RESULTS.png
  python -m sasa_tf.bin.benchmark --compare=OLD.jsonl,NEW.jsonl

--target=op measures the operation on query, key and value, layer the layer with its projections,
and model the inference of a ResNet or, with --modes=forward_backward, its training step. The runs
of the candidates are interleaved. Each run repeats the step inside one program, so that the
overhead of calling the program is negligible.

--target=serving exports networks with convolution and with attention to several formats, runs them
in their runtimes in processes without sasa_tf, and prints the latency, the speed relative to
convolution, the difference of the outputs, load time, first call and peak memory.

Set CUDA_VISIBLE_DEVICES= (empty) to measure the CPU of a machine that has a GPU.
"""

from __future__ import annotations

import re
import shlex
import sys

from absl import flags

from sasa_tf.bin import program, serving_flags
from sasa_tf.errors import UserError

FLAGS = flags.FLAGS

flags.adopt_module_key_flags(serving_flags)
flags.DEFINE_enum("target", "op", ["op", "layer", "model", "serving"], "What to measure.")
flags.DEFINE_list(
  "candidates",
  [],
  "What to compare: conv3x3, auto and names of implementations. For models: conv, "
  "conv_stem+attention, full_attention, optionally (not for serving) with an implementation as in "
  "conv_stem+attention/blocked. All by default.",
)
flags.DEFINE_list(
  "baselines",
  [],
  "Candidates that the others are compared with. By default reference and conv3x3; for models "
  "conv.",
)
flags.DEFINE_multi_enum(
  "modes",
  ["forward_backward"],
  ["forward", "forward_backward"],
  "Repeat the flag for both. forward_backward adds the gradients of all inputs; for a model it is "
  "a training step.",
)
flags.DEFINE_list(
  "shapes",
  ["56x56x64", "28x28x128", "14x14x256", "7x7x512"],
  "HxWxC of the targets op and layer. By default those of ResNet's four stages at 224 pixels.",
)
flags.DEFINE_list(
  "batch_sizes", [], "Batch sizes. By default 2 on a CPU and 64 on a GPU; 1 and 8 for serving."
)
flags.DEFINE_list(
  "dtypes",
  ["float32"],
  "Some of float32, bfloat16 and float16. Layers and models use mixed precision.",
)
flags.DEFINE_enum("jit", "on", ["on", "off", "both"], "Whether XLA compiles the step.")
flags.DEFINE_integer("num_heads", 8, "Number of attention heads.", 1, 1024)
flags.DEFINE_integer("kernel_size", 7, "Window size of the attention, odd.", 1, 255)
flags.register_validator("kernel_size", lambda size: size % 2, "expected an odd number")
flags.DEFINE_integer("dilation_rate", 1, "Dilation rate of the attention.", 1, 65_536)
flags.DEFINE_enum("border", "zero", ["zero", "mask"], "Treatment of neighbors outside the image.")
flags.DEFINE_integer("model_id", 50, "ResNet depth of the networks: 26, 38 or 50.")
flags.register_validator("model_id", lambda depth: depth in (26, 38, 50), "expected 26, 38 or 50")
flags.DEFINE_integer("image_size", 224, "Image size of the networks in pixels.", 1, 65_500)
flags.DEFINE_integer("rounds", 15, "Number of runs of each candidate.", 1, 1_000_000)
flags.DEFINE_float(
  "min_run_seconds",
  None,
  "Minimum duration of a run. By default 0.2 on a CPU, 0.1 on a GPU, and 1 for models on a GPU, "
  "whose steps overlap with the work of the host except for the first, and for serving.",
  lower_bound=0,
)
flags.DEFINE_bool(
  "memory", True, "Whether to measure peak memory; for serving also load time and first call."
)
flags.DEFINE_integer("threads", 0, "Threads of an operation on the CPU; 0 for all cores.", 0, 1024)
flags.DEFINE_string("output", None, "JSON-lines file to append the results to.")
flags.DEFINE_bool("overwrite", False, "Replace --plot if it exists.")
flags.DEFINE_string(
  "plot", None, "Image file to write a plot of the results to, for example a .png."
)
flags.DEFINE_string("show", None, "Result file to print (and --plot) instead of measuring.")
flags.DEFINE_list(
  "compare", [], "Two result files, OLD.jsonl,NEW.jsonl, to compare instead of measuring."
)


# Positive integers below 10 million.
_SIZE = r"[1-9]\d{0,6}"


def _shapes() -> list[tuple[int, int, int]]:
  if FLAGS.target == "model":
    return [(FLAGS.image_size, FLAGS.image_size, 3)]
  for shape in FLAGS.shapes:
    if not re.fullmatch(f"{_SIZE}x{_SIZE}x{_SIZE}", shape):
      raise UserError(f"--shapes: expected HxWxC such as 56x56x64; received {shape[:40]!r}.")
  return [tuple(map(int, shape.split("x"))) for shape in FLAGS.shapes]


def _batch_sizes() -> list[int]:
  for size in FLAGS.batch_sizes:
    if not re.fullmatch(_SIZE, size):
      raise UserError(f"--batch_sizes: expected positive integers; received {size[:40]!r}.")
  return [int(size) for size in FLAGS.batch_sizes]


def _min_run_seconds(gpu: bool) -> float:
  if FLAGS.min_run_seconds is not None:
    return FLAGS.min_run_seconds
  if not gpu:
    return 0.2
  return 1.0 if FLAGS.target == "model" else 0.1


def _measure() -> None:
  command = shlex.join(["python", "-m", "sasa_tf.bin.benchmark", *sys.argv[1:]])
  if FLAGS.target == "serving":
    serving_flags.measure_served_models(_batch_sizes(), command)
    return
  serving_flags.reject_for_other_targets(FLAGS.target)
  for name in ("dtypes", "shapes"):
    if not FLAGS[name].value:
      raise UserError(f"--{name} is empty, so that nothing would be measured. Omit the flag.")
  shapes, batch_sizes = _shapes(), _batch_sizes()

  from sasa_tf.benchmarks import run
  from sasa_tf.benchmarks.measurement import environment, measure
  from sasa_tf.benchmarks.workloads import candidates, cases

  unknown = set(FLAGS.dtypes) - set(cases.DTYPES)
  if unknown:
    raise UserError(
      f"--dtypes: expected some of {', '.join(cases.DTYPES)}; received {', '.join(unknown)}."
    )
  names = FLAGS.candidates or candidates.default_candidates(FLAGS.target)
  candidates.check_candidates(FLAGS.target, names)
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
    measure.MeasurementPlan(
      rounds=FLAGS.rounds,
      min_run_seconds=_min_run_seconds(gpu),
      memory=FLAGS.memory,
    ),
    baselines=FLAGS.baselines,
    output=FLAGS.output,
    plot=FLAGS.plot,
    overwrite=FLAGS.overwrite,
    command=command,
  )


def main(argv: list[str]) -> None:
  """Measures, or prints or compares earlier results."""
  program.check_no_positional_args(argv)
  if FLAGS.compare or FLAGS.show:
    from sasa_tf.benchmarks import run
    from sasa_tf.benchmarks.serving import results as served_results

    if FLAGS.compare:
      run.compare_files(FLAGS.compare)
    elif served_results.holds_served_results(FLAGS.show):
      from sasa_tf.benchmarks.serving.run import show

      if FLAGS.plot:
        raise UserError("--plot does not apply to results of --target=serving. Remove the flag.")
      show(FLAGS.show)
    else:
      run.show(FLAGS.show, baselines=FLAGS.baselines, plot=FLAGS.plot, overwrite=FLAGS.overwrite)
  else:
    _measure()


def run() -> None:
  """Console script."""
  program.run(main, local_inputs=("compare", "exports", "show"))


if __name__ == "__main__":
  run()
