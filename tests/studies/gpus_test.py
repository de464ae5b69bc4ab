"""GPUs as nvidia-smi lists them."""

import os

import pytest

from sasa_tf.errors import UserError
from sasa_tf.studies import gpus


@pytest.fixture
def nvidia_smi(tmp_path, monkeypatch):
  """A program of that name, which prints two GPUs."""
  program = tmp_path / "nvidia-smi"
  program.write_text("#!/bin/sh\necho '0, GPU-aa, NVIDIA H200'\necho '1, GPU-bb, NVIDIA H200'\n")
  program.chmod(0o755)
  monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
  monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
  return program


def test_selection(nvidia_smi, monkeypatch):
  assert [gpu.id for gpu in gpus.find_gpus()] == ["GPU-aa", "GPU-bb"]
  assert [gpu.name for gpu in gpus.find_gpus("1")] == ["GPU 1 (NVIDIA H200)"]
  assert gpus.find_gpus("GPU-aa")[0].id == "GPU-aa"
  assert gpus.find_gpus("none") == []
  monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
  assert [gpu.id for gpu in gpus.find_gpus()] == ["GPU-bb"]
  monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
  assert gpus.find_gpus() == []
  with pytest.raises(UserError, match=r"GPU '7' does not exist\. nvidia-smi lists: 0"):
    gpus.find_gpus("0,7")


def test_lost_gpus(nvidia_smi, monkeypatch):
  monkeypatch.setattr(gpus, "_TIMEOUT_SECONDS", 0.3)
  first, second = gpus.find_gpus()
  nvidia_smi.write_text("#!/bin/sh\necho '1, GPU-bb, NVIDIA H200'\necho 'Unable to ...' >&2\n")
  assert gpus.missing_gpus([first, second, gpus.Gpu("MIG-1", "MIG-1")]) == [first]
  nvidia_smi.write_text("#!/bin/sh\nexec sleep 9\n")
  assert gpus.missing_gpus([first]) == []


@pytest.mark.parametrize(
  "error, lost",
  [
    ("INTERNAL: CUDA_ERROR_LAUNCH_FAILED: unspecified launch failure", True),
    ("runtime.num_gpus=1, but TensorFlow sees 0 GPUs.", True),
    ("CUDA_ERROR_OUT_OF_MEMORY: out of memory", False),
    ("the data is missing", False),
  ],
)
def test_errors_of_lost_gpus(error, lost):
  assert bool(gpus.GPU_LOST.search(error)) == lost
