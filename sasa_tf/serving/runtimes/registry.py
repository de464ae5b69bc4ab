"""The runtime of each export format, and whether it is installed."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Callable

from sasa_tf import extras
from sasa_tf.errors import UserError
from sasa_tf.serving.runtimes.node import find_tensorflow_js

_FOLDER = pathlib.Path(__file__).parent

# The script that runs an adapter in a fresh process.
RUN_MODEL = _FOLDER / "run_model.py"

# The script that times several models of a runtime in one process.
MEASURE_MODELS = _FOLDER / "measure_models.py"


@dataclasses.dataclass(frozen=True)
class Runtime:
  """What runs the models of one export format.

  Attributes:
    name: name of the runtime in messages.
    adapter: file with the class `Model`, see `run_model`.
    requires: modules that the adapter imports, keys of `sasa_tf.extras.OPTIONAL`.
    find_environment: returns variables for the adapter's process. Raises `MissingExtraError` if
      what it looks for is not installed.
  """

  name: str
  adapter: pathlib.Path
  requires: tuple[str, ...] = ()
  find_environment: Callable[[], dict[str, str]] = dict


# Format -> runtime. TensorFlow has an interpreter of LiteRT files, too.
RUNTIMES = {
  "keras": Runtime("Keras", _FOLDER / "keras.py"),
  "saved_model": Runtime("TensorFlow", _FOLDER / "saved_model.py"),
  "litert": Runtime("LiteRT", _FOLDER / "litert.py"),
  "onnx": Runtime("ONNX Runtime", _FOLDER / "onnx.py", requires=("onnxruntime",)),
  "openvino": Runtime("OpenVINO", _FOLDER / "openvino.py", requires=("openvino",)),
  "tfjs": Runtime(
    "TensorFlow.js in Node", _FOLDER / "tfjs.py", find_environment=find_tensorflow_js
  ),
}


def find_runtime(format_name: str) -> Runtime:
  """Returns the runtime of a format, after a check that its packages are installed.

  Args:
    format_name: a key of `RUNTIMES`.

  Raises:
    UserError: the format has no runtime.
    MissingExtraError: a package is missing; the message names the extra that installs it.
  """
  if format_name not in RUNTIMES:
    raise UserError(
      f"models of the format {format_name} cannot be verified: expected one of "
      f"{', '.join(sorted(RUNTIMES))}."
    )
  runtime = RUNTIMES[format_name]
  extras.require(f"the verification of --format={format_name}", *runtime.requires)
  runtime.find_environment()
  return runtime
