"""Options of one format are rejected, before anything is loaded, if that format is not written."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
  "option", ["--cpu_kernels", "--gpu_kernels=auto", "--input_type=image_bytes"]
)
def test_options_of_saved_models_need_that_format(tmp_path, option):
  output = tmp_path / "exported"
  done = subprocess.run(
    [
      *(sys.executable, "-m", "sasa_tf.bin.export", "--model_dir=.", "--format=litert"),
      *(f"--output_dir={output}", option),
    ],
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 2, done.stderr
  name = option.partition("=")[0]
  assert f"{name} is an option of --format=saved_model, which is not among" in done.stderr
  assert ("their runtimes do not decode" in done.stderr) == (name == "--input_type")
  assert not output.exists()


@pytest.mark.parametrize(
  ("flags", "message"),
  [
    (["--format=onnx", "--onnx_opset=9"], "--onnx_opset=9 is not supported: expected 11 to 18."),
    (["--format=litert", "--onnx_opset=15"], "--onnx_opset is an option of --format=onnx"),
  ],
)
def test_unusable_opset(flags, message, tmp_path):
  pytest.importorskip("onnx")
  pytest.importorskip("tf2onnx")
  done = subprocess.run(
    [sys.executable, "-m", "sasa_tf.bin.export", f"--output_dir={tmp_path / 'out'}", *flags],
    capture_output=True,
    text=True,
  )
  assert done.returncode == 2
  assert done.stderr.startswith(f"error: {message}")
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
  ("names", "expected"),
  [
    (["preset"], "verified preset by its weights"),
    (["saved_model", "preset"], "verified on 8 images, preset by its weights"),
    (["saved_model"], "verified on 8 images"),
  ],
)
def test_formats_without_a_runtime_are_not_verified_on_images(names, expected):
  program = (
    "from types import SimpleNamespace as N\nfrom sasa_tf.bin import export_flags as e\n"
    f"print(e._verified([N(format_name=n) for n in {names}], '8 images'))"
  )
  done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
  assert done.stdout.strip() == expected


def test_images_that_exceed_the_memory_are_rejected():
  program = (
    "from sasa_tf.bin import export_flags as e\n"
    "from sasa_tf.training.config_validation import memory\n"
    "memory.available_memory = lambda: 2.0**30\n"
    "e._check_memory([224, 224], 1)\n"
    "try:\n  e._check_memory([10000, 9000], 1)\nexcept ValueError as error:\n  print(error)"
  )
  done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
  assert done.stdout.startswith(
    "--input_image_size=10000,9000, --batch_size=1: an export needs at least 18.8 GiB"
  )
