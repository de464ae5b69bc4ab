"""Checks of the environment: packages of optional extras, and the backend of Keras 3."""

from __future__ import annotations

import importlib.util
import json
import os
import pathlib
import sys

from sasa_tf.errors import KerasBackendError, MissingExtraError

# Module -> (distribution, the extra that installs it).
OPTIONAL = {
  "matplotlib": ("matplotlib", "report"),
  "official": ("tf-models-official", "garden"),
  "PIL": ("pillow", "garden"),
  "rich": ("rich", "report"),
  "scipy": ("scipy", "report"),
  "sklearn": ("scikit-learn", "garden"),
  "tf_keras": ("tf-keras", "garden"),
  "yaml": ("pyyaml", "report"),
}


def require(user: str, *modules: str) -> None:
  """Checks that optional packages are installed, without importing them.

  Args:
    user: what needs the packages, for the message.
    *modules: keys of `OPTIONAL`.

  Raises:
    MissingExtraError: a package is missing; the message names the extras that install it.
    KerasBackendError: Model Garden is among them, which imports Keras 3, and its backend is another
      one than TensorFlow.
  """
  missing = [OPTIONAL[module] for module in modules if importlib.util.find_spec(module) is None]
  if missing:
    distributions = ", ".join(sorted({distribution for distribution, _ in missing}))
    extras = ",".join(sorted({extra for _, extra in missing}))
    raise MissingExtraError(
      f"{user} needs {distributions}. Install with: pip install 'sasa_tf[{extras}]'"
    )
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
  home = os.environ.get("KERAS_HOME") or os.path.join(os.path.expanduser("~"), ".keras")
  config = pathlib.Path(home, "keras.json").expanduser()
  try:
    return json.loads(config.read_text())["backend"], str(config)
  except (OSError, ValueError, LookupError, TypeError):
    return "tensorflow", "Keras's default"
