"""Runs LiteRT files with ai-edge-litert, or with TensorFlow's interpreter."""

import importlib.metadata

try:
  from ai_edge_litert.interpreter import Interpreter

  VERSION = f"LiteRT {importlib.metadata.version('ai-edge-litert')}"
except ModuleNotFoundError:
  import tensorflow as tf

  Interpreter, VERSION = tf.lite.Interpreter, f"TensorFlow Lite {tf.__version__}"


class Model:
  """A LiteRT file, see `run_model`. Its signature is called "prepared" here."""

  def __init__(self, path):
    """Loads the model."""
    self.version = VERSION
    self._interpreter = Interpreter(path, num_threads=1)
    self._runner = self._interpreter.get_signature_runner("serving_default")
    ((self._name, details),) = self._runner.get_input_details().items()
    batch = int(details["shape_signature"][0])
    self.signatures = {"prepared": None if batch < 0 else batch}

  def run(self, signature, inputs):
    """Returns the outputs by name."""
    return self._runner(**{self._name: inputs})
