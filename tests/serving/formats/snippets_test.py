"""The examples of docs/serving.md run, where their runtime is installed."""

import functools
import http.server
import os
import pathlib
import re
import subprocess
import sys
import threading

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from sasa_tf.serving.runtimes.registry import find_runtime
from tests.serving import small_classifier

DOCUMENT = pathlib.Path(__file__).parents[3] / "docs" / "serving.md"


def snippet(name):
  text = DOCUMENT.read_text()
  return re.search(rf"<!-- snippet: {name} -->\n```\w+\n(.*?)```", text, re.DOTALL)[1]


def best_name(classifier, pixels):
  probs = classifier.serve_prepared(tf.constant(pixels[None]))["probs"].numpy()
  return small_classifier.NAMES[probs.argmax()]


@pytest.fixture
def pixels():
  size = (small_classifier.SIZE, small_classifier.SIZE, 3)
  return np.random.default_rng(0).integers(0, 256, size, dtype=np.uint8)


@pytest.mark.parametrize("name", ["onnx", "openvino"])
def test_python(name, classifier, exported_classifier, pixels):
  folder = exported_classifier(name).parents[1]
  Image.fromarray(pixels).save(folder / "image.jpg", quality=95)
  decoded = np.asarray(Image.open(folder / "image.jpg"), np.float32)
  done = subprocess.run(
    [sys.executable, "-c", snippet(name)], cwd=folder, capture_output=True, text=True, timeout=120
  )
  assert done.returncode == 0, done.stderr
  *name_words, probability = done.stdout.split()
  assert " ".join(name_words) == best_name(classifier, decoded)
  assert 0 < float(probability) <= 1


# What a page has: the library, an image, and URLs relative to the page.
PAGE = """
const tf = require("@tensorflow/tfjs");
const image = {{ data: new Uint8Array({rgba}), width: {size}, height: {size} }};
globalThis.document = {{ querySelector: () => image }};
(async () => {{
{code}
}})();
"""


def test_browser(classifier, exported_classifier, pixels):
  folder = exported_classifier("tfjs").parents[1]
  handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
  with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f'"http://127.0.0.1:{server.server_port}/exported/'
    done = subprocess.run(
      ["node", "-"],
      input=PAGE.format(
        size=small_classifier.SIZE,
        rgba=np.pad(pixels, [(0, 0), (0, 0), (0, 1)], constant_values=255).reshape(-1).tolist(),
        code=snippet("tfjs").replace('"exported/', url),
      ),
      env={**os.environ, **find_runtime("tfjs").find_environment()},
      capture_output=True,
      text=True,
      timeout=120,
    )
    server.shutdown()
  assert done.returncode == 0, done.stderr
  assert done.stdout.splitlines()[-1] == best_name(classifier, pixels.astype(np.float32))
