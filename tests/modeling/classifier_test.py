"""SASAResNetClassifier: parameters, training, serialization, preprocessing, Model Garden parity."""

import numpy as np
import pytest

from sasa_tf.modeling.classifier import MEAN_RGB, STDDEV_RGB
from tests.layers.bindings import BINDINGS, both_bindings

pytestmark = pytest.mark.thorough

SMALL = {
  "model_id": 26,
  "num_classes": 5,
  "input_shape": (32, 32, 3),
  "width_multiplier": 0.0625,
  "num_heads": 2,
  "stem": "conv_small",
  "attention_groups": (1, 4),
}
# Trainable parameters of the paper's Table 1 with 1,000 classes. The weights are zeros and the
# implementation is the fastest to trace; neither changes the count.
PARAMETERS = {
  (26, "conv", ()): 13_696_552,
  (50, "conv", ()): 25_557_032,
  (26, "conv", (1, 2, 3, 4)): 10_331_264,
  (50, "conv", (1, 2, 3, 4)): 18_015_504,
  (26, "attention", (1, 2, 3, 4)): 10_324_032,
  (50, "attention", (1, 2, 3, 4)): 18_008_272,
}


def images(count=4):
  return np.random.default_rng(0).integers(0, 256, (count, 32, 32, 3)).astype("uint8")


def count(model):
  return sum(int(np.prod(w.shape)) for w in model.trainable_weights)


@both_bindings
@pytest.mark.parametrize(("model_id", "stem", "attention_groups"), PARAMETERS)
def test_parameters_match_the_paper(keras_api, model_id, stem, attention_groups):
  _, binding = BINDINGS[keras_api]
  model = binding.SASAResNetClassifier(
    model_id,
    stem=stem,
    attention_groups=attention_groups,
    kernel_initializer="zeros",
    implementation="reference",
  )
  assert count(model) == PARAMETERS[model_id, stem, attention_groups]
  assert tuple(model.output_shape) == (None, 1000)


@both_bindings
def test_fit_save_and_reload(keras_api, tmp_path):
  keras, binding = BINDINGS[keras_api]
  model = binding.SASAResNetClassifier(
    **SMALL, dropout_rate=0.2, pooling="max", classifier_activation="softmax", name="digits"
  )
  model.compile(
    optimizer=keras.optimizers.SGD(0.01),
    loss=keras.losses.SparseCategoricalCrossentropy(),
    jit_compile=False,
  )
  x = binding.SASAResNetClassifier.preprocess(images())
  before = [np.array(w) for w in model.trainable_weights]
  history = model.fit(x, np.array([0, 1, 2, 3]), verbose=0)
  assert np.isfinite(history.history["loss"][0])
  after = [np.array(w) for w in model.trainable_weights]
  assert any((a != b).any() for a, b in zip(after, before, strict=True))
  model.save(tmp_path / "model.keras")
  loaded = keras.models.load_model(tmp_path / "model.keras")
  assert type(loaded) is binding.SASAResNetClassifier and loaded.name == "digits"
  assert loaded.get_config() == model.get_config()
  np.testing.assert_allclose(loaded(x), model(x), atol=1e-6)
  np.testing.assert_allclose(np.sum(model(x), axis=-1), np.ones(4), rtol=1e-5)


@both_bindings
def test_backbone_shares_the_layers_of_the_flat_model(keras_api):
  _, binding = BINDINGS[keras_api]
  model = binding.SASAResNetClassifier(**SMALL, dropout_rate=0.1)
  assert type(model.backbone) is binding.SASAResNet
  head = ["pool", "dropout", "classifier"]
  names = [layer.name for layer in model.layers]
  assert names == [layer.name for layer in model.backbone.layers] + head
  assert all(layer is model.get_layer(layer.name) for layer in model.backbone.layers)
  model.backbone.trainable = False
  assert count(model) == 5 * 128 + 5


@both_bindings
def test_default_head_has_no_dropout(keras_api):
  _, binding = BINDINGS[keras_api]
  model = binding.SASAResNetClassifier(**SMALL)
  assert [layer.name for layer in model.layers][-2:] == ["pool", "classifier"]
  assert type(model.get_layer("pool")).__name__ == "GlobalAveragePooling2D"


@both_bindings
def test_regularizer_includes_the_dense_layer(keras_api):
  keras, binding = BINDINGS[keras_api]
  model = binding.SASAResNetClassifier(**SMALL, kernel_regularizer=keras.regularizers.L2(1e-4))
  assert len(model.losses) == len(model.backbone.losses) + 1


def test_preprocess_is_model_gardens_normalization():
  preprocess_ops = pytest.importorskip(
    "official.vision.ops.preprocess_ops", reason="needs the extra garden"
  )
  assert MEAN_RGB == preprocess_ops.MEAN_RGB and STDDEV_RGB == preprocess_ops.STDDEV_RGB
  for _, binding in BINDINGS.values():
    found = binding.SASAResNetClassifier.preprocess(images())
    assert found.dtype == "float32"
    expected = (images().astype("float32") - np.float32(MEAN_RGB)) / np.float32(STDDEV_RGB)
    np.testing.assert_array_equal(found, expected)


def test_logits_equal_model_gardens_classification_model():
  classification_model = pytest.importorskip(
    "official.vision.modeling.classification_model", reason="needs the extra garden"
  )
  tf_keras, binding = BINDINGS["tf_keras"]
  ours = binding.SASAResNetClassifier(**SMALL)
  arguments = {name: value for name, value in SMALL.items() if name != "num_classes"}
  theirs = classification_model.ClassificationModel(
    binding.SASAResNet(**arguments),
    num_classes=5,
    input_specs=tf_keras.layers.InputSpec(shape=[None, 32, 32, 3]),
  )
  theirs.backbone.set_weights(ours.backbone.get_weights())
  theirs.layers[-1].set_weights(ours.get_layer("classifier").get_weights())
  x = ours.preprocess(images())
  np.testing.assert_array_equal(ours(x), theirs(x))


@both_bindings
@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    ({"num_classes": 0}, "num_classes must be a positive int; received 0"),
    ({"dropout_rate": 1.0}, "dropout_rate must be at least 0 and below 1; received 1.0"),
    ({"pooling": "mean"}, r"pooling must be one of \('avg', 'max'\); received 'mean'"),
    ({"model_id": 18}, "model_id must be one of"),
  ],
)
def test_bad_arguments(keras_api, arguments, message):
  _, binding = BINDINGS[keras_api]
  with pytest.raises(ValueError, match=message):
    binding.SASAResNetClassifier(**{**SMALL, **arguments})
