"""The presets that are part of the package."""

import os
import pathlib

import numpy as np
import pytest

from sasa_tf.modeling.presets import find_preset, packaged_presets
from tests.layers.bindings import BINDINGS, both_bindings

MAX_BYTES = 5_000_000
# Logits for `_image`, to notice weights or a model that changed.
EXPECTED = {
  "resnet26_cifar10": [
    2.2015,
    -0.9097,
    0.7497,
    1.6309,
    -1.5637,
    0.3356,
    1.0711,
    -1.5444,
    -1.0534,
    -1.1144,
  ],
  "sasa_resnet26_cifar10": [
    1.4137,
    -0.9221,
    0.5236,
    1.4432,
    -0.6414,
    0.113,
    1.2223,
    -1.0936,
    -0.7992,
    -1.1426,
  ],
}
# Accuracy of the model cards.
ACCURACY = {"resnet26_cifar10": 0.865, "sasa_resnet26_cifar10": 0.870}
# Folder of the classes' folders of CIFAR-10's test images.
CIFAR10 = os.environ.get("SASA_TF_CIFAR10_TEST")
CLASSIFIERS = sorted(ACCURACY)


def _image():
  """Returns a smooth image [1, 32, 32, 3] with values from 0 to 255."""
  y, x = np.mgrid[:32, :32] / 31
  return 255 * np.stack([x, y, (np.sin(9 * x * y) + 1) / 2], axis=-1)[None]


def test_all_classifiers_are_packaged():
  assert set(CLASSIFIERS) <= set(packaged_presets())
  assert BINDINGS["keras"][1].SASAResNetClassifier.presets() == tuple(CLASSIFIERS)


@pytest.mark.parametrize("name", packaged_presets())
def test_files(name):
  found = find_preset(name)
  assert sum(file.stat().st_size for file in found.path.iterdir()) <= MAX_BYTES
  card = (found.path / "README.md").read_text()
  assert card.startswith(f"# {name}\n")
  for part in ("Data", "Recipe", "Limits", f"--preset={name}"):
    assert part in card
  assert found.labels and found.preprocessing["image_size"]


@both_bindings
@pytest.mark.parametrize("name", CLASSIFIERS)
def test_logits(keras_api, name):
  model = BINDINGS[keras_api][1].SASAResNetClassifier.from_preset(name)
  logits = np.asarray(model(model.preprocess(_image()), training=False))[0]
  np.testing.assert_allclose(logits, EXPECTED[name], atol=2e-3)
  assert (
    find_preset(name).labels[logits.argmax()] == find_preset(name).labels[np.argmax(EXPECTED[name])]
  )


@pytest.mark.skipif(not CIFAR10, reason="SASA_TF_CIFAR10_TEST names no folder of test images")
@pytest.mark.parametrize("name", CLASSIFIERS)
def test_accuracy_on_real_images(name):
  import tensorflow as tf

  model = BINDINGS["keras"][1].SASAResNetClassifier.from_preset(name)
  images, labels = [], []
  for label, class_name in enumerate(find_preset(name).labels):
    for file in sorted(pathlib.Path(CIFAR10, class_name).glob("*.jpg"))[:100]:
      images.append(tf.io.decode_jpeg(file.read_bytes()).numpy())
      labels.append(label)
  logits = model.predict(model.preprocess(np.stack(images)), batch_size=100, verbose=0)
  accuracy = np.mean(logits.argmax(-1) == labels)
  assert len(images) == 1000
  assert abs(accuracy - ACCURACY[name]) < 0.03  # three standard deviations for 1,000 images
