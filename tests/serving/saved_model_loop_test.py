"""The loop of an XLA-compiled signature on an accelerator, here on the CPU."""

import numpy as np
import pytest
import tensorflow as tf

from sasa_tf.serving.runtimes import saved_model

SPEC = tf.TensorSpec([None, 2, 2, 3], tf.float32, "images")


@pytest.fixture
def load(tmp_path, monkeypatch):
  """Returns a function that loads a model with two signatures of one function."""
  monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind=None: [kind])

  def write(function):
    module = tf.Module()
    module.call = tf.function(function, input_signature=[SPEC], jit_compile=True)
    signatures = {"gpu": module.call, "prepared": module.call}
    tf.saved_model.save(module, str(tmp_path), signatures=signatures)
    return saved_model.Model(str(tmp_path))

  return write


def test_calls_differ_in_their_inputs(load):
  model = load(lambda images: {"logits": tf.reduce_sum(images, [1, 2])})
  images = np.ones([2, 2, 2, 3], np.float32)
  # 24 values of 1, 2 and 3 in three calls.
  assert model.loop("gpu", images, 3)() == pytest.approx(24 * 6)
  assert model.loop("prepared", images, 3) is None


def test_signatures_that_xla_cannot_compile_have_no_loop(load):
  model = load(
    lambda images: {"text": tf.reduce_sum(tf.strings.length(tf.as_string(images)), [1, 2])}
  )
  assert model.loop("gpu", np.ones([2, 2, 2, 3], np.float32), 3) is None
