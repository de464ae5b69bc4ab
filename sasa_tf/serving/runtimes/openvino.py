"""Runs OpenVINO models on the CPU."""

import os

import openvino


class Model:
  """A directory with model.xml, see `run_model`. Its signature is called "prepared" here."""

  def __init__(self, path, num_threads=None):
    """Loads the model."""
    self.version = f"OpenVINO {openvino.__version__.partition('-')[0]}"
    # Otherwise OpenVINO computes in bfloat16 where the processor has instructions for it.
    settings = {"INFERENCE_PRECISION_HINT": "f32"}
    if num_threads:
      settings["INFERENCE_NUM_THREADS"] = num_threads
    self._model = openvino.Core().compile_model(os.path.join(path, "model.xml"), "CPU", settings)
    shape = self._model.input().partial_shape
    self.signatures = {
      "prepared": [None if size.is_dynamic else size.get_length() for size in shape]
    }

  def run(self, signature, inputs):
    """Returns the outputs by name."""
    found = self._model(inputs)
    return {output.get_any_name(): found[output].copy() for output in self._model.outputs}
