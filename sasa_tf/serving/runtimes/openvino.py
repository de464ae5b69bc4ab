"""Runs OpenVINO models on the CPU."""

import os

import openvino


class Model:
  """A directory with model.xml, see `run_model`. Its signature is called "prepared" here."""

  def __init__(self, path):
    """Loads the model."""
    self.version = f"OpenVINO {openvino.__version__.partition('-')[0]}"
    # Otherwise OpenVINO computes in bfloat16 where the processor has instructions for it.
    self._model = openvino.Core().compile_model(
      os.path.join(path, "model.xml"), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
    )
    batch = self._model.input().partial_shape[0]
    self.signatures = {"prepared": None if batch.is_dynamic else batch.get_length()}

  def run(self, signature, inputs):
    """Returns the outputs by name."""
    found = self._model(inputs)
    return {output.get_any_name(): found[output].copy() for output in self._model.outputs}
