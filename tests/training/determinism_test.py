"""Bitwise reproducible runs."""

import os

import numpy as np
import pytest
import tensorflow as tf

from sasa_tf.errors import UserError
from sasa_tf.training import determinism
from tests.training import processes, tiny_run

AUGMENTED = {
  "task.train_data.aug_rand_hflip": True,
  "task.train_data.aug_crop": True,
  "task.train_data.color_jitter": 0.4,
  "task.train_data.shuffle_buffer_size": 500,
}


def weights(model_dir, step):
  reader = tf.train.load_checkpoint(f"{model_dir}/ckpt-{step}")
  names = sorted(reader.get_variable_to_shape_map())
  # The object graph is a string without tensor values.
  return {name: reader.get_tensor(name) for name in names if "OBJECT_GRAPH" not in name}


def assert_identical(first, second):
  assert first.keys() == second.keys()
  for name, value in first.items():
    np.testing.assert_array_equal(value, second[name], err_msg=name)


def test_data_service_is_rejected():
  service = {
    "task.train_data.enable_tf_data_service": True,
    "task.train_data.tf_data_service_address": "grpc://localhost:5050",
  }
  with pytest.raises(UserError, match=r"--deterministic: task\.train_data\.enable_tf_data_service"):
    determinism.enable_determinism(tiny_run.params("unused", **service), 0, "unused")


@pytest.mark.slow
@pytest.mark.parametrize("implementation", ["auto", "blocked"])
def test_two_runs_are_equal(implementation, tmp_path):
  """With shuffling and augmentation. "auto" uses the compiled kernels if they are built."""
  data = tiny_run.write_data(tmp_path / "data")
  for name, seed, steps in (("one", 3, 12), ("two", 3, 12), ("other", 4, 4)):
    status, printed = processes.finish(
      processes.command(
        data,
        tmp_path / name,
        "--deterministic",
        f"--seed={seed}",
        steps=steps,
        **AUGMENTED,
        **{"task.model.backbone.sasa_resnet.implementation": implementation},
      ),
      PYTHONHASHSEED=str(os.getpid() + len(name)),
    )
    assert status == 0, printed
  assert_identical(weights(tmp_path / "one", 12), weights(tmp_path / "two", 12))
  other, one = weights(tmp_path / "other", 2), weights(tmp_path / "one", 2)
  assert any(not np.array_equal(one[name], other[name]) for name in one)


@pytest.mark.slow
def test_runs_interrupted_at_the_same_step_are_equal(tmp_path):
  data = tiny_run.write_data(tmp_path / "data")
  for name in ("one", "two"):
    for steps in (6, 12):
      status, printed = processes.finish(
        processes.command(data, tmp_path / name, "--deterministic", steps=steps, **AUGMENTED)
      )
      assert status == 0, printed
  assert_identical(weights(tmp_path / "one", 12), weights(tmp_path / "two", 12))


def test_resumed_run_has_a_different_seed(tmp_path, monkeypatch):
  monkeypatch.setattr(tf.config.experimental, "enable_op_determinism", lambda: None)
  params = tiny_run.params(tmp_path)
  fresh = determinism.enable_determinism(params, 5, str(tmp_path))
  assert fresh.task.train_data.seed == fresh.task.validation_data.seed == 5
  assert fresh.task.train_data.deterministic
  assert params.task.train_data.seed is None  # not modified
  tf.train.Checkpoint(x=tf.Variable(1.0)).write(str(tmp_path / "ckpt-40"))
  assert determinism.enable_determinism(params, 5, str(tmp_path)).task.train_data.seed == 45
