"""The program in a process; its logic is tested in tests/pretrained."""

import subprocess
import sys

import numpy as np
import tensorflow as tf

from sasa_tf.keras import SASAResNetClassifier


def convert(*flags):
  return subprocess.run(
    [sys.executable, "-m", "sasa_tf.bin.convert_weights", *flags],
    capture_output=True,
    text=True,
    timeout=300,
    check=False,
  )


def test_a_keras_file_becomes_a_preset_and_a_checkpoint(tmp_path):
  model = SASAResNetClassifier(
    26, 3, (16, 16, 3), width_multiplier=0.0625, num_heads=2, kernel_size=3, stem="conv_small"
  )
  model.save(tmp_path / "model.keras")
  flags = ["--source=sasa_tf", f"--output={tmp_path}/preset"]
  checkpoint = tmp_path / "preset" / "backbone"
  done = convert(*flags, f"--input={tmp_path}/model.keras", f"--checkpoint={checkpoint}")
  assert done.returncode == 0, done.stderr
  restored = SASAResNetClassifier.from_preset(tmp_path / "preset")
  kernel = np.array(model.get_layer("stem").kernel)
  np.testing.assert_array_equal(restored.get_layer("stem").kernel, kernel)
  names = [name for name, _ in tf.train.list_variables(str(checkpoint))]
  assert any(name.startswith("backbone/") for name in names)

  same = convert("--source=sasa_tf", "--input=x", "--output=new", "--checkpoint=new")
  assert same.returncode == 2 and "expected the prefix of new files" in same.stderr

  again = convert(*flags, f"--input={tmp_path}/model.keras")
  assert again.returncode == 2 and "exists. Choose another directory" in again.stderr
  assert again.stderr.count("\n") == 1
