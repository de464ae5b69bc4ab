"""Times exported models of one runtime, in a process that cannot import sasa_tf.

  python -I measure_models.py ADAPTER.py PLAN.json RESULTS.json OUTPUTS.npz

The calls of the models are interleaved: in each round, every model is called until a number of
seconds has passed, and the order changes from round to round. PLAN.json holds

  models        [{"name", "path", "signature"}]; several may share a path
  batch_sizes   of the calls
  num_threads   of an operation on the CPU
  rounds        0 only loads the models and calls them once
  seconds       minimum duration of the calls of a model in a round
  images        NPY file with inputs [B, H, W, 3] to return the outputs of; null for noise
  peak_batch    batch size whose peak memory is measured, with a single model; null for none

RESULTS.json gets `version` and `models`, {name: {"load_seconds", "first_call_seconds",
"peak_bytes", "peak_batch", "calls", "loops", "error"}}; the calls are {batch size: [[seconds of
each call] of each round]}, and the loops {batch size: [seconds of a call within a loop on the
accelerator in each round]}, for signatures that their adapter runs so.
OUTPUTS.npz gets NAME/OUTPUT -> array [B, ...] for the images. A model with a fixed batch size is
called with this batch size alone.
"""

import importlib.util
import json
import pathlib
import sys
import time

import numpy as np

_NOISE_SEED = 0
_NUM_NOISE_IMAGES = 4
# The first calls optimize the graph, choose kernels and allocate memory.
_WARM_UP_CALLS = 3
_LOOP_CALLS = 20


def main(adapter_file, plan_file, results_file, outputs_file):
  """Measures all models of a plan."""
  sys.modules["sasa_tf"] = None  # `import sasa_tf` raises ModuleNotFoundError
  run_model = _run_model()
  adapter = run_model.load_adapter(adapter_file)
  plan = json.loads(pathlib.Path(plan_file).read_text())
  loaded, results, outputs = {}, {}, {}
  for spec in plan["models"]:
    result = results[spec["name"]] = {"calls": {}, "loops": {}, "error": None}
    try:
      model = _load(adapter, spec, plan, loaded, result)
      if spec["signature"] not in model.signatures:
        raise LookupError(f"no signature {spec['signature']}, only {sorted(model.signatures)}")
      images = _comparison_images(plan["images"], model.signatures[spec["signature"]])
      start = time.perf_counter()
      run_model.run_in_batches(model, spec["signature"], images[:1])
      result["first_call_seconds"] = time.perf_counter() - start
      # With a batch size that is measured: some runtimes compile a program for each.
      batch_size = plan["batch_sizes"][0]
      found = run_model.run_in_batches(model, spec["signature"], images, batch_size)
      outputs.update({f"{spec['name']}/{name}": value for name, value in found.items()})
    except Exception as error:  # reported in the row of the model
      result["error"] = f"{type(error).__name__}: {error}"
  specs = [spec for spec in plan["models"] if not results[spec["name"]]["error"]]
  for batch_size in plan["batch_sizes"] if plan["rounds"] else ():
    _time_calls(specs, loaded, results, batch_size, plan["rounds"], plan["seconds"])
    _time_loops(specs, loaded, results, batch_size, plan["rounds"])
  if plan["peak_batch"] and specs:
    (spec,) = specs
    _measure_peak(spec, loaded[spec["path"]], results[spec["name"]], plan["peak_batch"])
  version = next((model.version for model in loaded.values()), "")
  pathlib.Path(results_file).write_text(json.dumps({"version": version, "models": results}))
  np.savez(outputs_file, **outputs)


def _run_model():
  """Returns the module beside this file, whose directory must not be on sys.path."""
  path = pathlib.Path(__file__).with_name("run_model.py")
  spec = importlib.util.spec_from_file_location("run_model", path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


def _load(adapter, spec, plan, loaded, result):
  """Loads a model, or returns one of the same path."""
  if spec["path"] not in loaded:
    before, start = _resident_bytes("VmRSS"), time.perf_counter()
    loaded[spec["path"]] = adapter.Model(spec["path"], num_threads=plan["num_threads"])
    result["load_seconds"] = time.perf_counter() - start
    result["bytes_before"] = before
  return loaded[spec["path"]]


def _comparison_images(file, shape):
  """Returns float32 [B, H, W, 3]."""
  if file is not None:
    return np.load(file)
  return _noise(_NUM_NOISE_IMAGES, shape)


def _noise(batch_size, shape):
  """Returns images of noise, float32 [B, H, W, 3], values from 0 to 255."""
  random = np.random.default_rng(_NOISE_SEED)
  return random.uniform(0, 255, [batch_size, *shape[1:]]).astype(np.float32)


def _time_calls(specs, loaded, results, batch_size, rounds, seconds):
  """Calls the models with a batch size, interleaved."""
  calls = {}
  for spec in specs:
    model, name = loaded[spec["path"]], spec["signature"]
    shape = model.signatures[name]
    if shape[0] in (None, batch_size):
      images = _noise(batch_size, shape)
      try:
        for _ in range(_WARM_UP_CALLS):
          model.run(name, images)
      except Exception as error:
        results[spec["name"]]["error"] = f"batch {batch_size}: {type(error).__name__}: {error}"
        continue
      calls[spec["name"]] = lambda model=model, name=name, images=images: model.run(name, images)
      results[spec["name"]]["calls"][batch_size] = []
  for name in _interleaved(calls, rounds):
    results[name]["calls"][batch_size].append(_call_for(calls[name], seconds))


def _time_loops(specs, loaded, results, batch_size, rounds):
  """Runs the loops of the models that were called with a batch size, interleaved."""
  loops = {}
  for spec in specs:
    model, name = loaded[spec["path"]], spec["signature"]
    if hasattr(model, "loop") and batch_size in results[spec["name"]]["calls"]:
      loop = model.loop(name, _noise(batch_size, model.signatures[name]), _LOOP_CALLS)
      if loop is not None:
        loops[spec["name"]] = loop
        results[spec["name"]]["loops"][batch_size] = []
  for name in _interleaved(loops, rounds):
    (seconds,) = _call_for(loops[name], 0)
    results[name]["loops"][batch_size].append(seconds / _LOOP_CALLS)


def _interleaved(calls, rounds):
  """Yields each name once per round, in an order that changes from round to round."""
  names = list(calls)
  for number in range(rounds):
    shift = number % max(len(names), 1)
    yield from names[shift:] + names[:shift]


def _call_for(call, seconds):
  """Calls at least once; returns the seconds of each call."""
  end, times = time.perf_counter() + seconds, []
  while not times or time.perf_counter() < end:
    start = time.perf_counter()
    call()
    times.append(time.perf_counter() - start)
  return times


def _measure_peak(spec, model, result, batch_size):
  """Adds the memory that loading the model and one call with a batch take."""
  shape = model.signatures[spec["signature"]]
  batch_size = shape[0] or batch_size
  model.run(spec["signature"], _noise(batch_size, shape))
  result["peak_bytes"] = _resident_bytes("VmHWM") - result["bytes_before"]
  result["peak_batch"] = batch_size


def _resident_bytes(key):
  """Returns VmRSS, the resident memory of this process, or VmHWM, its peak."""
  # Not getrusage, whose peak includes that of the process that started this one.
  for line in pathlib.Path("/proc/self/status").read_text().splitlines():
    if line.startswith(f"{key}:"):
      return 1024 * int(line.split()[1])
  raise OSError(f"/proc/self/status has no {key}")


if __name__ == "__main__":
  main(*sys.argv[1:])
