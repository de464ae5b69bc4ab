"""Device time of training steps on a GPU, by kind of operation, from a profile by TensorFlow.

  python -m tests.analysis.step_profile [--batch_size=128] [CANDIDATE[:WINDOW] ...]

Candidates are those of `sasa_tf.bin.benchmark --target=model`, with the window of the attention.
The steps are those of the benchmark: ResNet-50, 224 pixels, mixed bfloat16, one XLA program. They
are timed without the profiler too, in interleaved rounds.
"""

from __future__ import annotations

import argparse
import collections
import glob
import json
import pathlib
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence

import tensorflow as tf
from tensorflow.tsl.profiler.protobuf import xplane_pb2

from sasa_tf.benchmarks.workloads.candidates import make_workload
from sasa_tf.benchmarks.workloads.cases import Case

DEFAULT = ("conv:7", "conv_stem+attention/fused:7", "conv_stem+attention/fused:3")
KINDS = ("attention", "matrix products", "convolutions", "other")
PROFILED_STEPS = 10
ROUNDS = 5

# (kernel, HLO instruction) -> microseconds in a step.
Profile = dict[tuple[str, str], float]


def kind_of(kernel: str, instruction: str) -> str:
  """Returns the kind of a kernel that an instruction of an XLA program launches."""
  if "sasa::" in kernel:
    return "attention"
  if "conv" in instruction and "convert" not in instruction:
    return "convolutions"
  if instruction.startswith(("custom-call", "gemm_fusion")):
    return "matrix products"
  return "other"


def kernel_times(folder: str, steps: int) -> Profile:
  """Returns the times in the profile of a number of steps."""
  times: Profile = collections.defaultdict(float)
  for path in glob.glob(f"{folder}/**/*.xplane.pb", recursive=True):
    space = xplane_pb2.XSpace.FromString(pathlib.Path(path).read_bytes())
    for plane in space.planes:
      if not plane.name.startswith("/device:GPU"):
        continue
      names = {number: data.name for number, data in plane.stat_metadata.items()}
      # The other lines summarize the streams.
      streams = [line for line in plane.lines if line.name.startswith("Stream")]
      for event in (event for stream in streams for event in stream.events):
        instruction = next(
          (names[stat.ref_value] for stat in event.stats if names[stat.metadata_id] == "hlo_op"), ""
        )
        kernel = plane.event_metadata[event.metadata_id].name
        times[kernel, instruction] += event.duration_ps / 1e6 / steps
  return dict(times)


def timed(step: Callable[[], tf.Tensor], steps: int) -> float:
  """Returns the milliseconds of a step, mean over steps launched without waiting."""
  step().numpy()
  start = time.perf_counter()
  for _ in range(steps):
    loss = step()
  loss.numpy()
  return (time.perf_counter() - start) / steps * 1e3


def make_step(candidate: str, batch_size: int) -> Callable[[], tf.Tensor]:
  """Returns a compiled training step of "CANDIDATE:WINDOW"."""
  name, _, window = candidate.partition(":")
  case = Case(
    "model",
    name,
    "forward_backward",
    batch_size,
    (224, 224, 3),
    "bfloat16",
    True,
    kernel_size=int(window or 7),
    model_id=50,
  )
  workload = make_workload(case)
  compiled = tf.function(workload.step, jit_compile=True, autograph=False)
  return lambda: compiled(workload.inputs)[0]


def profiled(step: Callable[[], tf.Tensor]) -> Profile:
  """Returns the times of the kernels of a step."""
  with tempfile.TemporaryDirectory() as folder:
    with tf.profiler.experimental.Profile(folder):
      for _ in range(PROFILED_STEPS):
        loss = step()
      loss.numpy()
    return kernel_times(folder, PROFILED_STEPS)


def report(
  candidates: Sequence[str],
  batch_size: int,
  milliseconds: Sequence[float],
  profiles: Sequence[Profile],
) -> None:
  """Prints a row for each candidate; the speeds are relative to the first one."""
  print(f"{'ms':32}{'step':>8}{'images/s':>10}{'speed':>7}" + "".join(f"{k:>17}" for k in KINDS))
  for candidate, total, profile in zip(candidates, milliseconds, profiles, strict=True):
    sums = dict.fromkeys(KINDS, 0.0)
    for names, microseconds in profile.items():
      sums[kind_of(*names)] += microseconds / 1e3
    speed = f"{batch_size / total * 1e3:10,.0f}{milliseconds[0] / total:7.3f}"
    print(f"{candidate:32}{total:8.2f}{speed}" + "".join(f"{sums[k]:17.2f}" for k in KINDS))


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
  parser.add_argument("candidates", nargs="*", default=DEFAULT, metavar="CANDIDATE[:WINDOW]")
  parser.add_argument("--batch_size", type=int, default=128)
  parser.add_argument("--steps", type=int, default=50, help="in each round")
  parser.add_argument("--json", type=pathlib.Path, help="file for the time of each kernel")
  options = parser.parse_args()
  steps = [make_step(candidate, options.batch_size) for candidate in options.candidates]
  rounds = [[timed(step, options.steps) for step in steps] for _ in range(1 + ROUNDS)][1:]
  profiles = [profiled(step) for step in steps]
  medians = [statistics.median(of_one) for of_one in zip(*rounds, strict=True)]
  report(options.candidates, options.batch_size, medians, profiles)
  if options.json:
    rows = [
      [candidate, *names, microseconds]
      for candidate, profile in zip(options.candidates, profiles, strict=True)
      for names, microseconds in sorted(profile.items(), key=lambda item: -item[1])
    ]
    options.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
  main()
