"""Finds Node.js and TensorFlow.js."""

from __future__ import annotations

import shutil
import subprocess

from sasa_tf.errors import MissingExtraError

# Prints the node_modules directory of a package, which `require` finds from the working directory
# upwards and in NODE_PATH.
_RESOLVE = "console.log(require.resolve('@tensorflow/tfjs/package.json'))"


def find_tensorflow_js() -> dict[str, str]:
  """Returns the environment variables with which Node finds @tensorflow/tfjs.

  It is looked up in node_modules of the working directory and those above, in NODE_PATH and among
  npm's global packages.

  Raises:
    MissingExtraError: Node or the package is not installed.
  """
  node = shutil.which("node")
  if node is None:
    raise MissingExtraError(
      "the verification of --format=tfjs runs TensorFlow.js in Node, and there is no program "
      "`node`. Install Node 18 or later, and then: npm install @tensorflow/tfjs"
    )
  file = _output([node, "-e", _RESOLVE])
  if file:
    return {"NODE_PATH": file.rpartition("/@tensorflow/")[0]}
  npm = shutil.which("npm")
  folder = _output([npm, "root", "--global"]) if npm else ""
  if folder and _output([node, "-e", _RESOLVE.replace("'@", f"'{folder}/@")]):
    return {"NODE_PATH": folder}
  raise MissingExtraError(
    "the verification of --format=tfjs runs TensorFlow.js in Node, which does not find it. In the "
    "working directory: npm install @tensorflow/tfjs"
  )


def _output(command: list[str]) -> str:
  """Returns the output of a command, or "" if it fails."""
  done = subprocess.run(command, capture_output=True, text=True)
  return done.stdout.strip() if done.returncode == 0 else ""
