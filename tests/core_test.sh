#!/usr/bin/env bash
# Installs the wheel without extras, with the latest supported TensorFlow, in an empty environment,
# builds the CPU kernels there, and runs the quick tests outside of the checkout.
. "$(dirname "$0")/install_wheel.sh"
install_wheel constraints-core.txt test

# The tests, without the package beside them.
cp -r "$scratch/source/tests" "$scratch/source/pyproject.toml" .
"$python" - <<'PYTHON'
import importlib.util
import pathlib

import tensorflow as tf

import sasa_tf

assert "site-packages" in pathlib.Path(sasa_tf.__file__).parts, sasa_tf.__file__
for module in ("official", "tf_keras", "tqdm"):
  assert importlib.util.find_spec(module) is None, f"{module} is not part of the core"
print("core test: sasa_tf", sasa_tf.__version__, "with TensorFlow", tf.__version__)
PYTHON
"$python" -m sasa_tf.native.build
"$python" -m pytest -q -n "${TEST_PROCESSES:-2}" --dist loadfile \
  tests/compat/tensorflow_test.py tests/ops tests/layers tests/modeling tests/native/fused_test.py
