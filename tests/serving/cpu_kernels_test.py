"""SavedModels with the compiled kernels: with their library, without it, and in a client."""

import os
import pathlib
import re
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from sasa_tf.errors import UserError
from sasa_tf.ops import KernelStatus, kernel_status
from sasa_tf.serving.clients.encoded_image_model import signature_name
from sasa_tf.serving.compiled_kernels import library_file
from sasa_tf.serving.compiled_kernels.signatures import calls_kernels
from sasa_tf.serving.export_paths import check_export_paths
from sasa_tf.serving.formats import saved_model
from sasa_tf.serving.formats.format import ExportOptions, SavedModelOptions
from sasa_tf.serving.model_description import describe_model
from sasa_tf.serving.verification import Verifier
from tests.serving import small_classifier
from tests.serving.small_detector import random_images

NAMES = {"serving_default", "image_tensor", "image_bytes", "tf_example", "prepared"}
STOCK = {f"{name}_stock" for name in NAMES}

needs_kernels = pytest.mark.skipif(
  "CPU" not in kernel_status().usable, reason=kernel_status().reasons.get("CPU", "")
)


def export(path, **backbone):
  module = small_classifier.build_module(small_classifier.params_of(**backbone))
  path.mkdir()
  options = ExportOptions(describe_model(module, None), SavedModelOptions(cpu_kernels=True))
  saved_model.write(module, path, options)
  return module


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
  """A classifier whose stem and last stage are attention, and its SavedModel."""
  path = tmp_path_factory.mktemp("exported") / "saved_model"
  return export(path, attention_groups=[4], stem="attention"), path


@pytest.fixture(scope="module")
def images():
  return random_images([(32, 32), (60, 50)])


@needs_kernels
def test_all_signatures_equal_the_trained_model(exported, images):
  module, path = exported
  verification = Verifier(module, images).verify("saved_model", path)
  assert {each.signature for each in verification.comparisons} == NAMES | STOCK
  for each in verification.comparisons:
    assert each.logits_difference < 1e-4 * each.logits_scale
  signatures = tf.saved_model.load(str(path)).signatures
  assert {name for name in signatures if calls_kernels(signatures[name])} == NAMES
  check_export_paths({"saved_model": path}, overwrite=True)  # it recognizes what it wrote


# Without sasa_tf: fails without the library, and then loads it as the README says.
PROGRAM = """
import sys
import numpy as np
import tensorflow as tf
sys.modules["sasa_tf"] = None
signatures = tf.saved_model.load(".").signatures
images = tf.constant(np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3)), tf.uint8)
stock = signatures["serving_default_stock"](images)["logits"]
try:
  signatures["serving_default"](images)
except tf.errors.NotFoundError as error:
  print(error.message)
exec(open("assets.extra/libsasa_tf.md").read().split("```python")[1].split("```")[0])
for name in ("libsasa_tf.so", "copy.so"):  # of another exported model
  tf.load_library(f"assets.extra/{name}")
kernels = signatures["serving_default"](images)["logits"]
print("difference", float(tf.reduce_max(abs(kernels - stock)) / tf.reduce_max(abs(stock))))
"""


@needs_kernels
def test_the_library_is_needed_and_loaded_as_the_readme_says(exported):
  _, path = exported
  copy = path / "assets.extra" / "copy.so"
  copy.write_bytes((path / library_file.LIBRARY).read_bytes())
  try:
    result = subprocess.run(
      [sys.executable, "-I", "-c", PROGRAM], cwd=path, capture_output=True, text=True, check=True
    )
  finally:
    copy.unlink()
  assert "No FFI handler registered for sasa_tf_" in result.stdout
  assert float(re.search(r"difference (\S+)", result.stdout)[1]) < 1e-4
  assert "not registered" not in result.stderr


@pytest.fixture(scope="module")
def model_server(tmp_path_factory):
  """A program without Python that links TensorFlow."""
  program = tmp_path_factory.mktemp("model_server") / "model_server"
  folder = tf.sysconfig.get_lib()
  libraries = [f"-l:libtensorflow_{name}.so.2" for name in ("cc", "framework")]
  source = pathlib.Path(__file__).with_name("model_server.cc")
  include = f"-I{tf.sysconfig.get_include()}"
  command = ["g++", source, "-o", program, include, f"-L{folder}", f"-Wl,-rpath,{folder}"]
  subprocess.run([*command, *libraries], check=True)
  return program


@needs_kernels
def test_model_server_preloads_the_library(exported, model_server):
  _, path = exported
  signatures = tf.saved_model.load(str(path)).signatures
  images = (np.arange(2 * 32 * 32 * 3) * 37 % 256).reshape(2, 32, 32, 3)
  expected = signatures["serving_default_stock"](tf.constant(images, tf.uint8))["logits"]
  names = _operation_names(path, "serving_default")
  library = str(path / library_file.LIBRARY)
  environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "-1", "LD_PRELOAD": library}
  command = [model_server, path, *names]
  result = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
  received = np.array(result.stdout.split(), np.float32).reshape(expected.shape)
  np.testing.assert_allclose(received, expected, atol=1e-4 * float(tf.reduce_max(abs(expected))))


def _operation_names(path, signature):
  """Returns the operations of the input and of the logits in the graph of a SavedModel."""
  model = saved_model_pb2.SavedModel.FromString((path / "saved_model.pb").read_bytes())
  definition = model.meta_graphs[0].signature_def[signature]
  tensors = [definition.inputs["images"].name, definition.outputs["logits"].name]
  return [name.removesuffix(":0") for name in tensors]


@needs_kernels
def test_readme_names_what_the_library_needs(exported):
  _, path = exported
  text = (path / library_file.README).read_text()
  assert re.search(r"with glibc 2\.\d+ or later", text)
  assert f"built for TensorFlow\n{tf.__version__}." in text


@needs_kernels
@pytest.mark.parametrize("usable", [True, False])
def test_client_uses_its_own_kernels_or_stock_operations(exported, monkeypatch, usable):
  """It never loads the copy, which whoever exported the model has chosen."""
  _, path = exported
  if not usable:
    monkeypatch.setattr(
      "sasa_tf.serving.clients.encoded_image_model.kernel_status",
      lambda: KernelStatus((), {}, ""),
    )
  monkeypatch.setattr(tf, "load_library", None)
  signatures = tf.saved_model.load(str(path)).signatures
  assert calls_kernels(signatures[signature_name(signatures)]) == usable


def test_kernels_that_are_not_built_are_reported(monkeypatch):
  status = KernelStatus((), {"CPU": "they have not been built"}, "libsasa_tf.so", "make native")
  monkeypatch.setattr("sasa_tf.ops.kernel_status", lambda: status)
  with pytest.raises(UserError, match=r"needs the compiled kernels: they .* with `make native`"):
    library_file.require_kernels()


@needs_kernels
def test_model_without_attention_is_reported(tmp_path):
  with pytest.raises(UserError, match="no attention that the compiled kernels support"):
    export(tmp_path / "saved_model", attention_groups=[])


def test_required_glibc_is_the_latest_version(tmp_path):
  file = tmp_path / "library"
  file.write_bytes(b"\0GLIBC_2.2.5\0GLIBC_2.34\0GLIBC_2.4\0GLIBCXX_3.4.30\0")
  assert library_file.required_glibc(file) == "2.34"
