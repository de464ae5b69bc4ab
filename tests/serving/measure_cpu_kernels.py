"""Times SavedModels of ResNet-50 with compiled kernels and without, and convolution, interleaved.

  python -m tests.serving.measure_cpu_kernels DIRECTORY

exports the models to the directory, unless they are there, and prints the median time of a call.
"""

import pathlib
import sys
import time

import numpy as np
import tensorflow as tf

SIZE = 224
MODELS = {
  "convolution": {"attention_groups": [], "stem": "conv"},
  "conv stem + attention": {"attention_groups": [1, 2, 3, 4], "stem": "conv"},
  "full attention": {"attention_groups": [1, 2, 3, 4], "stem": "attention"},
}
ROUNDS = {1: 24, 8: 10}  # by batch size


def export(name, path):
  """Writes a model with random weights."""
  from official.core import exp_factory

  from sasa_tf import registry_imports  # noqa: F401
  from sasa_tf.serving.formats import saved_model
  from sasa_tf.serving.formats.format import ExportOptions, SavedModelOptions
  from sasa_tf.serving.model_description import describe_model
  from sasa_tf.serving.modules.classification_module import ClassificationModule

  params = exp_factory.get_exp_config("sasa_resnet_imagenet")
  params.task.model.override(
    {"input_size": [SIZE, SIZE, 3], "backbone": {"sasa_resnet": MODELS[name]}}
  )
  module = ClassificationModule(
    params, batch_size=None, input_image_size=[SIZE, SIZE], input_type="image_tensor"
  )
  random = np.random.default_rng(0)
  for weight in module.model.weights:
    if "gamma" in weight.name:  # zero in the last normalization of a block
      weight.assign(random.uniform(0.5, 1, weight.shape))
  path.mkdir(parents=True)
  options = SavedModelOptions(cpu_kernels=bool(MODELS[name]["attention_groups"]))
  saved_model.write(module, path, ExportOptions(describe_model(module, None), options))


def load(path):
  """Returns {what it has: signature}, and prints the time."""
  begin = time.perf_counter()
  kernels = path / "assets.extra" / "libsasa_tf.so"
  if kernels.exists():
    tf.load_library(str(kernels))
  model = tf.saved_model.load(str(path))
  print(f"{path.name}: loaded in {time.perf_counter() - begin:.1f} s", flush=True)
  names = {"kernels": "serving_default", "stock": "serving_default_stock"}
  if not kernels.exists():
    names = {"stock": "serving_default"}
  # The model owns the variables.
  return {kind: (model, model.signatures[name]) for kind, name in names.items()}


def call(signature, images):
  """Returns the logits and the seconds of a call."""
  begin = time.perf_counter()
  logits = signature[1](images)["logits"].numpy()
  return logits, time.perf_counter() - begin


def measure(signatures, batch):
  """Prints the time of a call over that of the first signature, and the differences."""
  images = np.random.default_rng(0).integers(0, 256, (batch, SIZE, SIZE, 3))
  images = tf.constant(images, tf.uint8)
  logits, times = {}, {key: [] for key in signatures}
  for key, signature in signatures.items():
    logits[key], seconds = call(signature, images)
    print(f"batch {batch}, {key}: first call {seconds:.1f} s", flush=True)
    call(signature, images)
  for _ in range(ROUNDS[batch]):
    for key, signature in signatures.items():
      times[key].append(call(signature, images)[1])
  medians = {key: np.median(each) for key, each in times.items()}
  first = next(iter(medians))
  for key, seconds in medians.items():
    stock = logits[key[0], "stock"]
    difference = np.abs(logits[key] - stock).max() / np.abs(stock).max()
    print(
      f"batch {batch}, {key}: {1e3 * seconds:.1f} ms, {batch / seconds:.1f} images/s, "
      f"{seconds / medians[first]:.2f} of {first[0]}, difference {difference:.1e}",
      flush=True,
    )


def main(directory):
  """Exports what is missing and measures."""
  paths = {name: pathlib.Path(directory, name.replace(" ", "_")) for name in MODELS}
  for name, path in paths.items():
    if not path.exists():
      export(name, path)
  signatures = {
    (name, kind): signature
    for name, path in paths.items()
    for kind, signature in load(path).items()
  }
  for batch in ROUNDS:
    measure(signatures, batch)


if __name__ == "__main__":
  main(*sys.argv[1:])
