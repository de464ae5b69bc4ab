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

  def __init__(self, path, num_threads=None):
    """Loads the model."""
    self.version = VERSION
    self._interpreter = Interpreter(path, num_threads=num_threads or 1)
    self._runner = self._interpreter.get_signature_runner("serving_default")
    ((self._name, details),) = self._runner.get_input_details().items()
    shape = [int(size) for size in details["shape_signature"]]
    self.signatures = {"prepared": [None if size < 0 else size for size in shape]}

  def run(self, signature, inputs):
    """Returns the outputs by name."""
    return self._runner(**{self._name: inputs})
