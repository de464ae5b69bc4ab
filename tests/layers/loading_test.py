"""A saved model says which import it needs."""

import keras
import numpy as np
import pytest

from sasa_tf.keras import LocalSelfAttention2D


def _saved_model(directory):
  inputs = keras.Input([4, 4, 3])
  model = keras.Model(inputs, LocalSelfAttention2D(4, 3, 2)(inputs))
  path = str(directory / "model.keras")
  model.save(path)
  return model, path


def test_loading_without_the_import_names_it(tmp_path, monkeypatch):
  """As in a process that has not imported the binding: its classes are not registered.

  tf_keras imports the module of a model's class itself, and prints nothing of a layer's config.
  """
  _, path = _saved_model(tmp_path)
  registered = keras.saving.get_custom_objects()
  for name in [name for name in registered if name.startswith("sasa_tf>")]:
    monkeypatch.delitem(registered, name)
  with pytest.raises(TypeError, match=r"import sasa_tf\.keras before loading"):
    keras.models.load_model(path)


def test_the_hint_does_not_disturb_loading(tmp_path):
  model, path = _saved_model(tmp_path)
  images = np.ones([1, 4, 4, 3], "float32")
  np.testing.assert_allclose(keras.models.load_model(path)(images), model(images))
