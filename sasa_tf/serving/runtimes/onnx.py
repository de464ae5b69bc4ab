"""Runs ONNX files with ONNX Runtime."""

import onnxruntime


class Model:
  """An ONNX file, see `run_model`. Its signature is called "prepared" here."""

  def __init__(self, path):
    """Loads the model."""
    self.version = f"ONNX Runtime {onnxruntime.__version__}"
    self._session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (images,) = self._session.get_inputs()
    batch = images.shape[0]  # a name if it is dynamic
    self._input = images.name
    self.signatures = {"prepared": batch if isinstance(batch, int) else None}

  def run(self, signature, inputs):
    """Returns the outputs by name."""
    names = [output.name for output in self._session.get_outputs()]
    return dict(zip(names, self._session.run(names, {self._input: inputs}), strict=True))
