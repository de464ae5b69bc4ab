"""The target serving of the benchmark program after its flags are parsed."""

from __future__ import annotations

import dataclasses
import itertools
import pathlib
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras

from sasa_tf import extras
from sasa_tf.benchmarks.measurement.environment import describe_environment, gpu_name
from sasa_tf.benchmarks.results.report import describe
from sasa_tf.benchmarks.serving import results as records
from sasa_tf.benchmarks.serving.exports import (
  Architecture,
  ExportedModel,
  build_network,
  check_architectures,
  export,
  find_exports,
  reference_of,
)
from sasa_tf.benchmarks.serving.measure import Setting, measure_together
from sasa_tf.benchmarks.serving.processes import Plan
from sasa_tf.benchmarks.serving.report import LEGEND, describe_latency, describe_loading
from sasa_tf.benchmarks.serving.results import ServedResult
from sasa_tf.benchmarks.serving.served_formats import (
  DEVICES,
  SERVED_FORMATS,
  ServedFormat,
  find_served_formats,
)
from sasa_tf.benchmarks.workloads.candidates import ARCHITECTURES
from sasa_tf.errors import UserError
from sasa_tf.ops import kernel_status
from sasa_tf.ops.portable.kernel import missing_compiler
from sasa_tf.outputs.json_lines import check_json_lines
from sasa_tf.reporting import ProgressBar


@dataclasses.dataclass(frozen=True)
class ServingBenchmark:
  """What is measured.

  Attributes:
    plan: how the models are called.
    formats: names of --formats; () for the default.
    devices: some of `DEVICES`; () for the CPU, and the GPU if there is one.
    candidates: networks to export; () for all.
    exports: directories of exported models to measure instead.
    baseline: candidate that the speeds are relative to; None for convolution, or the first.
    architecture: of the networks.
    memory: whether to measure load time, first call and peak memory.
    output: JSON-lines file to append the results to, or None.
    command: the command line, stored with the results.
  """

  plan: Plan
  formats: Sequence[str] = ()
  devices: Sequence[str] = ()
  candidates: Sequence[str] = ()
  exports: Sequence[str] = ()
  baseline: str | None = None
  architecture: Architecture = dataclasses.field(default_factory=Architecture)
  memory: bool = True
  output: str | None = None
  command: str = ""


def measure(benchmark: ServingBenchmark) -> None:
  """Exports or finds the models, measures them and prints the tables.

  Raises:
    UserError: a name is unknown, a package of a requested format is missing, or no model could be
      measured.
  """
  devices = _devices(benchmark.devices)
  served_formats = find_served_formats(benchmark.formats)
  if benchmark.output:
    check_json_lines(benchmark.output)
  if benchmark.exports:
    models = find_exports(benchmark.exports, served_formats)
    names = list(dict.fromkeys(each.candidate for each in models))
    served_formats = list(dict.fromkeys(each.served for each in models))
  else:
    names = list(dict.fromkeys(benchmark.candidates or ARCHITECTURES))
    check_architectures(names)
  baseline = _baseline(names, benchmark.baseline)
  environment = describe_environment()
  print(f"{describe(environment)}\n\n{LEGEND}", flush=True)
  served_formats = _usable(served_formats, devices, benchmark)
  # The measured processes need the memory of the GPU.
  tf.config.set_visible_devices([], "GPU")
  expected: dict[str, Mapping[str, np.ndarray]] = {}
  images, network = None, ""
  with (
    tempfile.TemporaryDirectory() as folder,
    _progress(served_formats, devices, names, benchmark) as progress,
  ):
    if benchmark.exports:
      models = [each for each in models if each.served in served_formats]
    else:
      network = _describe(benchmark.architecture)
      models, images = _export_all(benchmark, names, served_formats, expected, folder, progress)
    measured: list[ServedResult] = []
    for device, group in _groups(models, devices):
      progress.set_status(
        f"{group[0].served.export_format} on the {device.upper()}", important=True
      )
      setting = Setting(device, benchmark.plan, baseline, network, benchmark.memory)
      found = [
        dataclasses.replace(each, environment=environment, command=benchmark.command)
        for each in measure_together(group, setting, expected, images)
      ]
      if benchmark.output:
        records.append(benchmark.output, found)
      measured += found
      progress.advance()
  print(describe_results(measured))
  if not any(each.latency for each in measured):
    raise UserError("no model could be measured; the tables show the errors.")


def show(path: str) -> None:
  """Prints the results of a file."""
  results = records.read(path)
  print(f"{describe(results[-1].environment)}\n\n{LEGEND}")
  print(describe_results(results))


def describe_results(results: Sequence[ServedResult]) -> str:
  """Returns the tables of all devices and batch sizes, and the one of loading."""

  def setting(result: ServedResult) -> tuple[Any, ...]:
    case = result.case
    return case.network, DEVICES.index(case.device), case.num_threads, case.batch_size

  tables = [
    describe_latency(list(group))
    for _, group in itertools.groupby(sorted(results, key=setting), key=setting)
  ]
  return "\n\n".join(["", *tables, describe_loading(results)]).rstrip()


def _devices(names: Sequence[str]) -> list[str]:
  """Returns the devices to measure."""
  has_gpu = gpu_name() is not None
  for name in names:
    if name not in DEVICES:
      raise UserError(f"--devices={name}: expected some of {', '.join(DEVICES)}.")
    if name == "gpu" and not has_gpu:
      raise UserError("--devices=gpu: TensorFlow finds no GPU here. Measure on the CPU.")
  return list(dict.fromkeys(names)) or list(DEVICES if has_gpu else DEVICES[:1])


def _baseline(names: Sequence[str], chosen: str | None) -> str:
  if chosen is None:
    return "conv" if "conv" in names else names[0]
  if chosen not in names:
    raise UserError(
      f"--baselines: {chosen} is not measured here; expected one of {', '.join(names)}."
    )
  return chosen


def _usable(
  served_formats: Sequence[ServedFormat], devices: Sequence[str], benchmark: ServingBenchmark
) -> list[ServedFormat]:
  """Returns the formats that can be measured; prints why others are skipped.

  Raises:
    UserError: one that was requested by name cannot be measured, or none can.
  """
  usable = []
  for served in served_formats:
    reason = _unusable(served, devices, convert=not benchmark.exports)
    if reason is None:
      usable.append(served)
    elif benchmark.formats:
      raise UserError(f"--formats={served.name} cannot be measured: {reason}")
    else:
      print(f"skipped {served.name}: {reason}", flush=True)
  if not usable:
    raise UserError("no format can be measured here; see the reasons above.")
  return usable


def _unusable(served: ServedFormat, devices: Sequence[str], *, convert: bool) -> str | None:
  """Returns why a format cannot be measured, or None."""
  if not set(served.devices) & set(devices):
    return f"it runs on the {served.devices[0].upper()}, which is not measured."
  missing = served.missing_packages(convert=convert)
  if missing:
    try:
      extras.require(f"--formats={served.name}", *missing)
    except UserError as error:
      return str(error)
  status = kernel_status()
  if served.cpu_kernels and convert and "CPU" not in status.usable:
    return f"{status.reasons['CPU']}. Build the kernels with `{status.build_command}`."
  if served.gpu_kernels != "none" and convert:
    return missing_compiler()
  return None


def _groups(
  models: Sequence[ExportedModel], devices: Sequence[str]
) -> Iterator[tuple[str, list[ExportedModel]]]:
  """Yields the models of each runtime on each of its devices, sorted by format."""
  order = list(SERVED_FORMATS)
  models = sorted(models, key=lambda model: order.index(model.served.name))
  for device in devices:
    on_device = [each for each in models if device in each.served.devices]
    for export_format in dict.fromkeys(each.served.export_format for each in on_device):
      yield device, [each for each in on_device if each.served.export_format == export_format]


def _progress(
  served_formats: Sequence[ServedFormat],
  devices: Sequence[str],
  names: Sequence[str],
  benchmark: ServingBenchmark,
) -> ProgressBar:
  runtimes = {(d, f.export_format) for f in served_formats for d in f.devices if d in devices}
  exports = 0 if benchmark.exports else len(names) * len(served_formats)
  return ProgressBar(len(runtimes) + exports, "serving", unit="step", transient=True)


def _export_all(
  benchmark: ServingBenchmark,
  names: Sequence[str],
  served_formats: Sequence[ServedFormat],
  expected: dict[str, Mapping[str, np.ndarray]],
  folder: str,
  progress: ProgressBar,
) -> tuple[list[ExportedModel], np.ndarray]:
  """Exports all networks; adds what they return to `expected`, and returns the images too."""
  models = []
  for name in names:
    progress.set_status(f"{name}: building")
    module = build_network(name, benchmark.architecture)
    reference = reference_of(module)
    expected[name] = reference.outputs
    for served in served_formats:
      progress.set_status(f"{name}: {served.name}")
      if served.fixed_batch:
        modules = [
          build_network(name, benchmark.architecture, size) for size in benchmark.plan.batch_sizes
        ]
      elif served.cpu_kernels and not ARCHITECTURES[name].get("attention_groups", True):
        modules = []
      else:
        modules = [module]
      models += [export(name, each, served, pathlib.Path(folder)) for each in modules]
      progress.advance()
    tf_keras.backend.clear_session()
  return models, reference.images


def _describe(architecture: Architecture) -> str:
  """Returns the network in a few words."""
  size = architecture.image_size
  text = f"ResNet-{architecture.model_id}, {size} x {size}"
  if architecture.width_multiplier != 1:
    text += f", width {architecture.width_multiplier:g}"
  return f"{text}; {architecture.num_heads} heads, window {architecture.kernel_size}"
