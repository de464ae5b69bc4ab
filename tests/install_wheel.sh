# Sourced by core_test.sh and wheel_test.sh. Builds the wheel from a copy of the checkout and creates an
# empty environment. Sets `checkout`, `scratch` (removed at exit), `python` and `wheel`, and enters an
# empty working directory. `install_wheel CONSTRAINTS EXTRA` installs the wheel with an extra.
set -euo pipefail
checkout=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
python=$scratch/env/bin/python

mkdir "$scratch/source" "$scratch/elsewhere"
# A copy, so that the build leaves nothing in the checkout. Files that are deleted but tracked have no copy.
git -C "$checkout" ls-files -z --cached --others --exclude-standard |
  (cd "$checkout" && xargs -0 cp --parents -t "$scratch/source" 2>/dev/null) || true
"${PYTHON:-python3}" -m venv "$scratch/env"

pip() { "$python" -m pip --disable-pip-version-check --quiet "$@"; }

install_wheel() { pip install -c "$checkout/$1" "${wheel}[$2]"; }

pip install --upgrade pip # the pip of Python 3.10 cannot build one of Model Garden's dependencies
(cd "$scratch/source" && pip wheel --no-deps --wheel-dir "$scratch/wheels" .)
wheel=$(echo "$scratch"/wheels/sasa_tf-*.whl)
cd "$scratch/elsewhere"
export TF_CPP_MIN_LOG_LEVEL=2
