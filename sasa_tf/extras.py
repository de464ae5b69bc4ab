"""Checks of the environment: packages of optional extras, and the backend of Keras 3."""

from __future__ import annotations

import importlib.util
import json
import os
import pathlib
import sys

from sasa_tf.errors import KerasBackendError, MissingExtraError, UserError

# Module -> (distribution, the extra that installs it).
OPTIONAL = {
  "PIL": ("pillow", "garden"),
  "matplotlib": ("matplotlib", "report"),
  "official": ("tf-models-official", "garden"),
  "onnx": ("onnx", "onnx"),
  "onnxruntime": ("onnxruntime", "onnx"),
  "openvino": ("openvino", "openvino"),
  "rich": ("rich", "report"),
  "scipy": ("scipy", "report"),
  "sklearn": ("scikit-learn", "garden"),
  "tf2onnx": ("tf2onnx", "onnx"),
  "tf_keras": ("tf-keras", "garden"),
  "yaml": ("pyyaml", "report"),
}

# Module -> requirement that must be installed without its dependencies, because they conflict with
# those of sasa_tf, while the parts that are used do not need them.
WITHOUT_DEPENDENCIES = {"tensorflowjs": "tensorflowjs>=4.22,<5"}


def require(user: str, *modules: str) -> None:
  """Checks that optional packages are installed, without importing them.

  Args:
    user: what needs the packages, for the message.
    *modules: keys of `OPTIONAL` or `WITHOUT_DEPENDENCIES`.

  Raises:
    MissingExtraError: a package is missing; the message names the extras that install it.
    KerasBackendError: Model Garden is among them, which imports Keras 3, and its backend is another
      one than TensorFlow.
  """
  missing = [module for module in modules if importlib.util.find_spec(module) is None]
  if missing:
    names = sorted({OPTIONAL.get(module, (module,))[0] for module in missing})
    extras = sorted({OPTIONAL[module][1] for module in missing if module in OPTIONAL})
    commands = [f"pip install 'sasa_tf[{','.join(extras)}]'"] if extras else []
    for module in missing:
      if module in WITHOUT_DEPENDENCIES:
        commands.append(f"pip install --no-deps '{WITHOUT_DEPENDENCIES[module]}'")
    raise MissingExtraError(f"{user} needs {', '.join(names)}. Install with: {'; '.join(commands)}")
  if "official" in modules:
    require_tensorflow_backend(user)


def require_tensorflow_backend(user: str) -> None:
  """Checks that Keras 3 has, or will have, the TensorFlow backend, without importing it.

  Args:
    user: what needs Keras, for the message.

  Raises:
    KerasBackendError: it has another backend; the message says what selects it.
  """
  backend, source = _keras_backend()
  if backend != "tensorflow":
    raise KerasBackendError(
      f"{user} needs Keras 3 with the TensorFlow backend; received {backend!r} from {source}. Set "
      "the environment variable KERAS_BACKEND=tensorflow before Keras is imported."
    )


def _keras_backend() -> tuple[object, str]:
  """Returns the backend of Keras 3, and what selects it."""
  keras = sys.modules.get("keras")
  if keras is not None and hasattr(keras, "backend"):
    return keras.backend.backend(), "the imported Keras"
  if os.environ.get("KERAS_BACKEND"):
    return os.environ["KERAS_BACKEND"], "the environment variable KERAS_BACKEND"
  path = _keras_config_file()
  try:
    return json.loads(path.read_text())["backend"], str(path)
  except (OSError, RecursionError, ValueError, LookupError, TypeError):
    return "tensorflow", "Keras's default"


def _keras_config_file() -> pathlib.Path:
  home = os.environ.get("KERAS_HOME") or os.path.join(os.path.expanduser("~"), ".keras")
  return pathlib.Path(home, "keras.json").expanduser()


# Key of keras.json -> what both Keras versions accept.
_KERAS_CONFIG = {
  "floatx": ("float16, float32 or float64", {"float16", "float32", "float64"}.__contains__),
  "epsilon": ("a float", lambda value: isinstance(value, float)),
  "image_data_format": (
    "channels_last or channels_first",
    {"channels_last", "channels_first"}.__contains__,
  ),
}


def check_keras_config() -> None:
  """Checks the configuration file of Keras, which is read when Keras is imported.

  Raises:
    UserError: Keras would fail to be imported, or read a pipe forever.
  """
  path = _keras_config_file()
  if not os.path.exists(path):
    return
  try:
    if not os.path.isfile(path):
      raise UserError("it is a directory, a pipe or a device")
    config = json.loads(path.read_text())
    if not isinstance(config, dict):
      raise UserError(f"received {str(config)[:60]}")
    for key, (expected, is_valid) in _KERAS_CONFIG.items():
      value = config.get(key)
      if key in config and not (isinstance(value, (str, float)) and is_valid(value)):
        raise UserError(f"expected {expected} for {key!r}; received {str(value)[:60]!r}")
  except OSError as error:
    raise _keras_config_error(path, str(error.strerror)) from error
  except RecursionError as error:
    raise _keras_config_error(path, "it is nested too deeply") from error
  except UserError as error:
    raise _keras_config_error(path, str(error)) from None
  except ValueError:
    return  # Keras ignores a file that is no JSON


def _keras_config_error(path: pathlib.Path, problem: str) -> UserError:
  return UserError(
    f"{path}, the configuration of Keras, cannot be used: {problem}. Correct or remove it; Keras "
    "writes a new one."
  )
