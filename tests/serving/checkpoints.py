"""Checkpoints of models with random weights."""

import numpy as np
import tensorflow as tf


def save_checkpoint(model, path):
  """Writes weights that are all different, batch norms and biases included."""
  random = np.random.default_rng(0)
  for weight in model.weights:
    if weight.dtype == tf.float32:
      spread = random.normal(0, 0.02, weight.shape)
      weight.assign(abs(weight + spread) if "variance" in weight.name else weight + spread)
  return tf.train.Checkpoint(model=model).write(str(path))
