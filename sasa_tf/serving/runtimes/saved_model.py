"""Runs SavedModels with TensorFlow."""

import pathlib

import tensorflow as tf


class Model:
  """A SavedModel directory, see `run_model`."""

  def __init__(self, path, num_threads=None):
    """Loads the model."""
    self.version = f"TensorFlow {tf.__version__}"
    if num_threads:
      tf.config.threading.set_intra_op_parallelism_threads(num_threads)
    kernels = pathlib.Path(path, "assets.extra", "libsasa_tf.so")
    if kernels.exists():
      tf.load_library(str(kernels))
    self._model = tf.saved_model.load(path)  # owns the variables
    self._functions = dict(self._model.signatures)
    self.signatures = {
      name: _spec(each)[1].shape.as_list() for name, each in self._functions.items()
    }
    if not tf.config.list_physical_devices("GPU"):
      self.signatures.pop("gpu", None)  # it holds kernels for GPUs only

  def run(self, signature, inputs):
    """Returns the outputs of a signature by name."""
    function = self._functions[signature]
    name, spec = _spec(function)
    outputs = function(
      **{name: tf.constant(inputs.tolist() if spec.dtype == tf.string else inputs)}
    )
    return {name: value.numpy() for name, value in outputs.items()}

  def loop(self, signature, inputs, count):
    """Returns a function that runs the signature `gpu` in one XLA program; None for others."""
    if signature != "gpu":
      return None
    function = self._functions[signature]
    name, _ = _spec(function)

    @tf.function(jit_compile=True)
    def repeat(images):
      total = tf.zeros([])
      for step in tf.range(count):
        # Other inputs in each step, so that XLA does not move the signature out of the loop.
        outputs = function(**{name: images + tf.cast(step, tf.float32)})
        total += tf.add_n([tf.reduce_sum(tf.cast(each, tf.float32)) for each in outputs.values()])
      return total

    images = tf.constant(inputs)
    try:
      repeat(images)
    except (tf.errors.InvalidArgumentError, tf.errors.UnimplementedError):
      return None  # XLA has no suppression of detections
    return lambda: repeat(images).numpy()


def _spec(function):
  """Returns name and TensorSpec of the only input."""
  ((name, spec),) = function.structured_input_signature[1].items()
  return name, spec
