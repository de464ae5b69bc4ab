"""Runs TensorFlow.js models in Node, with the implementation in JavaScript."""

import json
import os
import subprocess
import sys
import tempfile

import numpy as np

_SCRIPT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "run_tfjs.js")


class Model:
  """A directory with model.json, see `run_model`. Its signature is called "prepared" here."""

  def __init__(self, path):
    """Reads the shape of the input."""
    with open(os.path.join(path, "model.json"), encoding="utf-8") as file:
      ((_, images),) = json.load(file)["signature"]["inputs"].items()
    shape = [int(size["size"]) for size in images["tensorShape"]["dim"]]
    self.signatures = {"prepared": [None if size < 0 else size for size in shape]}
    self.version = "TensorFlow.js"
    self._path = path

  def run(self, signature, inputs):
    """Returns the outputs by name."""
    with tempfile.TemporaryDirectory() as folder:
      inputs.astype("<f4").tofile(os.path.join(folder, "inputs"))
      done = subprocess.run(["node", _SCRIPT, self._path, folder, json.dumps(inputs.shape)])
      if done.returncode:
        sys.exit(done.returncode)  # Node has printed the error
      with open(os.path.join(folder, "outputs.json"), encoding="utf-8") as file:
        found = json.load(file)
    self.version = f"TensorFlow.js {found['version']}"
    return {
      name: np.array(each["values"], each["dtype"]).reshape(each["shape"])
      for name, each in found["outputs"].items()
    }
