"""Runs .keras files with Keras 3. The only runtime that needs sasa_tf, for its layer classes."""

import os
import pathlib
import sys


class Model:
  """A .keras file, see `run_model`. Its signature is called "normalized" here."""

  def __init__(self, path):
    """Loads the model."""
    os.environ["KERAS_BACKEND"] = "tensorflow"
    del sys.modules["sasa_tf"]  # `run_model` blocks it
    sys.path.insert(0, str(pathlib.Path(__file__).parents[3]))
    import keras

    import sasa_tf.keras  # noqa: F401  registers the classes

    self.version = f"Keras {keras.__version__}"
    self._model = keras.models.load_model(path, compile=False)
    self.signatures = {"normalized": list(self._model.inputs[0].shape)}

  def run(self, signature, inputs):
    """Returns the outputs as `output_0` and so on, in the order of `tf.nest.flatten`."""
    import tensorflow as tf

    outputs = tf.nest.flatten(self._model(inputs, training=False))
    return {f"output_{i}": output.numpy() for i, output in enumerate(outputs)}
