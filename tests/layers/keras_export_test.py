"""The exporters of both Keras versions trace models for export."""

import pytest
import tensorflow as tf

from sasa_tf.layers import mark_exports
from sasa_tf.ops.export_context import is_tracing_for_export
from tests.layers.bindings import BINDINGS, both_bindings, needs_tf_keras


def _model(keras_api):
  """Returns a model of Keras's own class and the list of what its layer saw while traced."""
  keras, _ = BINDINGS[keras_api]
  seen = []

  class Recorder(keras.layers.Layer):
    def call(self, inputs):
      seen.append(is_tracing_for_export())
      return 2.0 * inputs

  inputs = keras.Input([4])
  model = keras.Model(inputs, Recorder()(inputs))
  seen.clear()
  return model, seen


@both_bindings
def test_model_export(keras_api, tmp_path):
  model, seen = _model(keras_api)
  model.export(str(tmp_path))
  assert seen
  assert all(seen)


@both_bindings
def test_export_archive(keras_api, tmp_path):
  keras, _ = BINDINGS[keras_api]
  model, seen = _model(keras_api)
  archive = keras.export.ExportArchive()
  archive.track(model)
  archive.add_endpoint("serve", model.call, [tf.TensorSpec([None, 4], tf.float32)])
  archive.write_out(str(tmp_path))
  assert seen
  assert all(seen)


@both_bindings
def test_saved_model_save(keras_api, tmp_path):
  model, seen = _model(keras_api)
  tf.saved_model.save(model, str(tmp_path))
  assert seen
  assert all(seen)


@needs_tf_keras
def test_tf_keras_save_in_the_saved_model_format(tmp_path):
  model, seen = _model("tf_keras")
  model.save(str(tmp_path / "model"), save_format="tf")
  assert seen
  assert all(seen)


@both_bindings
def test_litert_converter(keras_api):
  model, seen = _model(keras_api)
  tf.lite.TFLiteConverter.from_keras_model(model).convert()
  assert any(seen)


@both_bindings
def test_use_after_an_export_is_not_for_export(keras_api, tmp_path):
  model, seen = _model(keras_api)
  model.export(str(tmp_path))
  seen.clear()
  tf.function(lambda x: model(x))(tf.zeros([1, 4]))
  assert seen == [False]


@both_bindings
def test_exporters_are_marked_once(keras_api):
  keras, _ = BINDINGS[keras_api]
  export = keras.Model.export
  mark_exports(keras)
  assert keras.Model.export is export


@pytest.mark.parametrize("name", ["export"])
@both_bindings
def test_marked_exporters_keep_their_documentation(keras_api, name):
  keras, _ = BINDINGS[keras_api]
  assert getattr(keras.Model, name).__doc__
