"""Initialization from checkpoints that fit, that fit in part, and that do not fit."""

import pathlib

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from sasa_tf.errors import UserError
from sasa_tf.tasks.init_checkpoint import find_init_checkpoint, restore_init_checkpoint


class Model(tf_keras.Model):
  """A backbone of one layer, and a head."""

  def __init__(self, width=4, classes=3, seed=0):
    super().__init__()
    tf_keras.utils.set_random_seed(seed)
    self.backbone = tf_keras.Sequential([tf_keras.layers.Dense(width, input_shape=(2,))])
    self.head = tf_keras.layers.Dense(classes)
    self.head.build((None, width))


def restore(path, model, modules="all"):
  restore_init_checkpoint(str(path), modules, {"backbone": model.backbone}, {"model": model})


@pytest.fixture
def saved(tmp_path):
  """Returns a model and the directory of its checkpoint, as a training writes it."""
  model = Model(seed=1)
  manager = tf.train.CheckpointManager(
    tf.train.Checkpoint(model=model, backbone=model.backbone, step=tf.Variable(3)),
    str(tmp_path / "run [1]*"),
    max_to_keep=1,
  )
  manager.save(8)
  return model, tmp_path / "run [1]*"


def equal(left, right):
  return [bool((a.numpy() == b.numpy()).all()) for a, b in zip(left, right, strict=True)]


@pytest.mark.parametrize("name", ["", "ckpt-8"])
def test_all_or_the_backbone_is_restored(saved, name):
  original, directory = saved
  model = Model(seed=2)
  restore(directory / name, model, "backbone")
  assert equal(model.backbone.weights, original.backbone.weights) == [True, True]
  assert not equal(model.head.weights, original.head.weights)[0]
  restore(directory / name, model)
  assert all(equal(model.weights, original.weights))


def test_other_classes_name_the_weights_and_the_cure(saved):
  original, directory = saved
  model = Model(classes=5, seed=2)
  before = model.get_weights()
  message = (
    r"does not fit task.init_checkpoint_modules=all of this model: .*kernel.* has \[4, 3\] in the "
    r"checkpoint, \[4, 5\] here; .*bias.* has \[3\] in the checkpoint, \[5\] here\. The backbone "
    r"fits: set task\.init_checkpoint_modules=backbone"
  )
  with pytest.raises(UserError, match=message):
    restore(directory, model)
  for old, new in zip(before, model.get_weights(), strict=True):
    np.testing.assert_array_equal(old, new)
  restore(directory, model, "backbone")
  assert all(equal(model.backbone.weights, original.backbone.weights))


def test_other_architectures_raise(saved, tmp_path):
  _, directory = saved
  with pytest.raises(UserError, match=r"\[2, 4\] in the checkpoint, \[2, 6\].* here\. Config"):
    restore(directory, Model(width=6))
  deeper = Model()
  deeper.backbone.add(tf_keras.layers.Dense(4))
  with pytest.raises(UserError, match=r"is not in the checkpoint.*Configure the backbone"):
    restore(directory, deeper, "backbone")
  path = tf.train.Checkpoint(other=tf.Variable(1.0)).write(str(tmp_path / "other"))
  with pytest.raises(UserError, match="is not in the checkpoint"):
    restore(path, Model())
  path = tf.compat.v1.train.Saver({"x": tf.Variable(1.0)}).save(None, str(tmp_path / "v1"))
  with pytest.raises(UserError, match="cannot be read: it is not an object-based checkpoint"):
    restore(path, Model())


def test_directories_without_checkpoint_raise(saved, tmp_path):
  _, directory = saved
  empty = tmp_path / "empty"
  empty.mkdir()
  state = empty / "checkpoint"
  for content in (None, "", "nonsense {", 'model_checkpoint_path: "ckpt-1"\n'):
    if content is not None:
      state.write_text(content)
    with pytest.raises(UserError, match=r"empty holds no checkpoint\. Set it to the directory"):
      find_init_checkpoint(str(empty))
  with pytest.raises(UserError, match="no such checkpoint"):
    find_init_checkpoint(str(tmp_path / "missing"))
  data = pathlib.Path(directory, "ckpt-8.data-00000-of-00001")
  data.write_bytes(data.read_bytes()[:20])
  with pytest.raises(UserError, match=r"init_checkpoint=.*run \[1\]\* cannot be read"):
    restore(directory, Model())


@pytest.mark.parametrize("modules", ["head", "", [], ["backbone", "x"], "backbone,x"])
def test_unknown_modules_raise(saved, modules):
  with pytest.raises(UserError, match="expected all, or some of backbone"):
    restore(saved[1], Model(), modules)
