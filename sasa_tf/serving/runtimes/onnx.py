"""Runs ONNX files with ONNX Runtime."""

import onnxruntime


class Model:
  """An ONNX file, see `run_model`. Its signature is called "prepared" here."""

  def __init__(self, path, num_threads=None):
    """Loads the model."""
    self.version = f"ONNX Runtime {onnxruntime.__version__}"
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = num_threads or 0
    self._session = onnxruntime.InferenceSession(path, options, ["CPUExecutionProvider"])
    (images,) = self._session.get_inputs()
    self._input = images.name
    # Dynamic sizes are names.
    shape = [size if isinstance(size, int) else None for size in images.shape]
    self.signatures = {"prepared": shape}

  def run(self, signature, inputs):
    """Returns the outputs by name."""
    names = [output.name for output in self._session.get_outputs()]
    return dict(zip(names, self._session.run(names, {self._input: inputs}), strict=True))
