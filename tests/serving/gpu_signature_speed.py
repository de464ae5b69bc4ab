"""Measures ResNet-50 with kernels as text against convolution, in a process without this library.

  python -m tests.serving.gpu_signature_speed --write=FOLDER    # needs nvcc, but no GPU
  python -I tests/serving/gpu_signature_speed.py FOLDER         # needs a GPU, but no sasa_tf

The first writes SavedModels in bfloat16 with a dynamic batch and random weights, each with one
signature that XLA compiles. The second measures them interleaved: calls of the signature one after
another, the latency of single calls, and the signature in a loop of an XLA program, which leaves
out what the host does for each call.
"""

import argparse
import os
import statistics
import time

import numpy as np
import tensorflow as tf

ATTENTION = (1, 2, 3, 4)
MODELS = {  # name: stages with attention, format of the kernels
  "convolution": ((), None),
  "stock": (ATTENTION, None),
  "ptx": (ATTENTION, "ptx"),
  "triton": (ATTENTION, "triton"),
}
SIZE, LOOP, ROUNDS = 224, 20, 8


def write(folder):
  """Writes a SavedModel for each of `MODELS`."""
  import tf_keras

  from sasa_tf import tf_keras as sasa
  from sasa_tf.ops import tracing_for_export
  from sasa_tf.ops.export_context import ExportedGpuKernels, gpu_kernels_for_export

  tf_keras.mixed_precision.set_global_policy("mixed_bfloat16")
  for name, (groups, kernel_format) in MODELS.items():
    tf_keras.utils.set_random_seed(1)
    model = sasa.SASAResNetClassifier(
      50, input_shape=(SIZE, SIZE, 3), attention_groups=groups, zero_init_residual=False
    )

    @tf.function(
      jit_compile=True, input_signature=[tf.TensorSpec([None, SIZE, SIZE, 3], tf.float32, "images")]
    )
    def serve(images, model=model):
      return {"logits": model(model.preprocess(images), training=False)}

    kernels = kernel_format and ExportedGpuKernels(kernel_format)
    with gpu_kernels_for_export(kernels) if kernels else tracing_for_export():
      function = serve.get_concrete_function()
    servable = tf.Module()
    servable.weights = model.variables
    options = tf.saved_model.SaveOptions(experimental_custom_gradients=False)
    path = os.path.join(folder, name)
    tf.saved_model.save(servable, path, signatures={"gpu": function}, options=options)


def _loop(function):
  """Returns a program that calls a signature `LOOP` times."""

  @tf.function(jit_compile=True)
  def loop(images):
    total = tf.zeros([])
    for step in tf.range(LOOP):
      logits = function(images=images + tf.cast(step, tf.float32))["logits"]
      total += tf.reduce_sum(logits)
    return total

  return loop


def _seconds(run):
  begin = time.perf_counter()
  run()
  return time.perf_counter() - begin


def _ways(function, images):
  """Returns {what is measured: (a call that runs it, calls of the signature in it)}."""
  loop = _loop(function)

  def calls():
    for _ in range(LOOP):
      result = function(images=images)
    result["logits"].numpy()

  return {
    "in a loop": (lambda: loop(images).numpy(), LOOP),
    "calls": (calls, LOOP),
    "latency": (lambda: function(images=images)["logits"].numpy(), 1),
  }


def measure(folder):
  """Prints milliseconds for each model, batch size and way to call it."""
  names = [name for name in MODELS if os.path.isdir(os.path.join(folder, name))]
  if tuple(int(part) for part in tf.__version__.split(".")[:2]) < (2, 21):
    names.remove("ptx")
  models = {name: tf.saved_model.load(os.path.join(folder, name)) for name in names}
  random = np.random.default_rng(0)
  for batch in (64, 1):
    images = tf.constant(random.uniform(0, 255, [batch, SIZE, SIZE, 3]), tf.float32)
    ways = {name: _ways(model.signatures["gpu"], images) for name, model in models.items()}
    for way in ("in a loop", "calls", "latency"):
      taken = {name: [] for name in names}
      for _ in range(ROUNDS):
        for name in names:
          run, count = ways[name][way]
          if not taken[name]:
            run()  # compiles
          taken[name].append(_seconds(run) / count * 1e3)
      medians = {name: statistics.median(times) for name, times in taken.items()}
      for name, median in medians.items():
        speed = medians["convolution"] / median
        print(f"{tf.__version__} batch {batch} {way:9} {name:11} {median:.3f} ms {speed:.3f}")


if __name__ == "__main__":
  parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
  parser.add_argument("folder", nargs="?")
  parser.add_argument("--write")
  options = parser.parse_args()
  if options.write:
    write(options.write)
  else:
    measure(options.folder)
