"""Times the exported operation against convolution in the installed runtimes, two threads.

  python -m tests.modeling.export_speed

Shapes are those of ResNet's four stages. Both run interleaved in one process for each runtime:
milliseconds, median and (lowest). Runtimes: TensorFlow, LiteRT, and with the packages tf2onnx,
onnxruntime and openvino also those. `sasa_tf.bin.benchmark --target=serving` times models.
"""

from __future__ import annotations

import argparse
import importlib.util
import pathlib
import tempfile
import time
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from sasa_tf import ops

Run = Callable[[], np.ndarray]
SHAPES = ((56, 64), (28, 128), (14, 256), (7, 512))
THREADS = 2


def operations(size: int, channels: int) -> dict[str, tuple[Callable, np.ndarray]]:
  """Returns a 3x3 convolution and attention with 8 heads, with their inputs."""
  draw = np.random.default_rng(0).normal
  # Arrays, because tf2onnx makes inputs of captured tensors.
  kernel = (draw(size=(3, 3, channels, channels)) * 0.02).astype(np.float32)
  tables = [(draw(size=(7, channels // 16)) * 0.5).astype(np.float32) for _ in range(2)]
  images = draw(size=(1, size, size, channels)).astype(np.float32)
  packed = draw(size=(1, size, size, 3, 8, channels // 8)).astype(np.float32)
  return {
    "convolution": (lambda x: tf.nn.conv2d(x, kernel, 1, "SAME"), images),
    "attention": (lambda x: ops.local_attention_2d_qkv_packed(x, *tables), packed),
  }


def _traced(function: Callable, shape: tuple, **options):
  with ops.tracing_for_export(quantizable=False, **options):
    return tf.function(function).get_concrete_function(tf.TensorSpec(shape, name="inputs"))


def _saved(function: Callable, shape: tuple, directory: str, **options) -> None:
  concrete = _traced(function, shape, **options)
  module = tf.Module()
  module.weights = concrete.variables
  save_options = tf.saved_model.SaveOptions(experimental_custom_gradients=False)
  tf.saved_model.save(module, directory, signatures=concrete, options=save_options)


def tensorflow(function: Callable, inputs: np.ndarray, directory: str) -> Run:
  _saved(function, (None, *inputs.shape[1:]), directory)
  module = tf.saved_model.load(directory)
  signature, tensor = module.signatures["serving_default"], tf.constant(inputs)
  return lambda _keep=module: next(iter(signature(inputs=tensor).values())).numpy()


def litert(function: Callable, inputs: np.ndarray, directory: str) -> Run:
  from ai_edge_litert.interpreter import Interpreter

  _saved(function, inputs.shape, directory)
  content = tf.lite.TFLiteConverter.from_saved_model(directory).convert()
  interpreter = Interpreter(model_content=content, num_threads=THREADS)
  runner = interpreter.get_signature_runner()
  return lambda _keep=interpreter: next(iter(runner(inputs=inputs).values()))


def _onnx(function: Callable, inputs: np.ndarray, directory: str) -> str:
  import tf2onnx

  path = f"{directory}/model.onnx"
  if pathlib.Path(path).exists():
    return path
  with ops.tracing_for_export(quantizable=False):
    specs = [tf.TensorSpec(inputs.shape, name="inputs")]
    tf2onnx.convert.from_function(tf.function(function), specs, opset=17, output_path=path)
  return path


def onnx_runtime(function: Callable, inputs: np.ndarray, directory: str) -> Run:
  import onnxruntime

  options = onnxruntime.SessionOptions()
  options.intra_op_num_threads = THREADS
  session = onnxruntime.InferenceSession(_onnx(function, inputs, directory), options)
  return lambda: session.run(None, {"inputs": inputs})[0]


def openvino(function: Callable, inputs: np.ndarray, directory: str) -> Run:
  import openvino as ov

  core = ov.Core()
  settings = {"INFERENCE_NUM_THREADS": THREADS, "INFERENCE_PRECISION_HINT": "f32"}
  model = core.compile_model(_onnx(function, inputs, directory), "CPU", settings)
  request = model.create_infer_request()
  return lambda: next(iter(request.infer({0: inputs}).values()))


RUNTIMES = {
  "TensorFlow": (tensorflow, ()),
  "LiteRT": (litert, ("ai_edge_litert",)),
  "ONNX Runtime": (onnx_runtime, ("tf2onnx", "onnxruntime")),
  "OpenVINO": (openvino, ("tf2onnx", "openvino")),
}


def time_candidates(name: str, candidates: dict, rounds: int) -> None:
  """Prints the times of the candidates in each runtime."""
  directories = {candidate: tempfile.mkdtemp() for candidate in candidates}
  for runtime, (load, packages) in RUNTIMES.items():
    if any(importlib.util.find_spec(package) is None for package in packages):
      continue
    runs, seconds = {}, {}
    for candidate, (function, inputs) in candidates.items():
      directory = directories[candidate]
      runs[candidate] = load(function, inputs, directory)
      difference = np.abs(runs[candidate]() - function(tf.constant(inputs)).numpy()).max()
      assert difference < 1e-3, (runtime, candidate, difference)
      seconds[candidate] = []
    for _ in range(rounds):
      for candidate, run in runs.items():
        run()
        for _ in range(2):
          start = time.perf_counter()
          run()
          seconds[candidate].append(1e3 * (time.perf_counter() - start))
    base = np.array(next(iter(seconds.values())))
    for candidate, times in seconds.items():
      print(
        f"{name:14} {runtime:13} {candidate:22} {np.median(times):7.2f} ({min(times):.2f}), "
        f"of convolution {np.median(times) / np.median(base):.2f} ({min(times) / min(base):.2f})",
        flush=True,
      )


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--rounds", type=int, default=10)
  flags = parser.parse_args()
  tf.config.threading.set_intra_op_parallelism_threads(THREADS)
  for size, channels in SHAPES:
    time_candidates(f"{size} x {size} x {channels}", operations(size, channels), flags.rounds)


if __name__ == "__main__":
  main()
