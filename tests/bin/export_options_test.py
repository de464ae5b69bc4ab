"""Options of export that are rejected before anything is loaded."""

import subprocess
import sys

import pytest


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
