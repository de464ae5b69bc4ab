#!/usr/bin/env bash
# Installs the wheel without extras, with the latest supported TensorFlow, in an empty environment,
# builds the CPU kernels there, and runs the quick tests outside of the checkout.
set -euo pipefail
checkout=$(cd "$(dirname "$0")/.." && pwd)
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

mkdir "$scratch/source" "$scratch/elsewhere"
# A copy, so that the build leaves nothing in the checkout.
git -C "$checkout" ls-files -z --cached --others --exclude-standard |
  (cd "$checkout" && xargs -0 cp --parents -t "$scratch/source" 2>/dev/null) || true
"${PYTHON:-python3}" -m venv "$scratch/env"
pip=("$scratch/env/bin/python" -m pip --disable-pip-version-check --quiet)
"${pip[@]}" install --upgrade pip
(cd "$scratch/source" && "${pip[@]}" wheel --no-deps --wheel-dir "$scratch/wheels" .)
wheel=$(echo "$scratch"/wheels/sasa_tf-*.whl)
"${pip[@]}" install -c "$checkout/constraints-core.txt" "${wheel}[test]"

# The tests, without the package beside them.
cp -r "$scratch/source/tests" "$scratch/source/pyproject.toml" "$scratch/elsewhere"
cd "$scratch/elsewhere"
export TF_CPP_MIN_LOG_LEVEL=2
"$scratch/env/bin/python" - <<'PYTHON'
import importlib.util
import pathlib

import tensorflow as tf

import sasa_tf

assert "site-packages" in pathlib.Path(sasa_tf.__file__).parts, sasa_tf.__file__
for module in ("official", "tf_keras", "tqdm"):
  assert importlib.util.find_spec(module) is None, f"{module} is not part of the core"
print("core test: sasa_tf", sasa_tf.__version__, "with TensorFlow", tf.__version__)
PYTHON
"$scratch/env/bin/python" -m sasa_tf.native.build
"$scratch/env/bin/python" -m pytest -q -n "${TEST_PROCESSES:-2}" --dist loadfile \
  tests/compat/tensorflow_test.py tests/ops tests/layers tests/modeling tests/native/fused_test.py
