"""A full-integer classifier is about as accurate as the float one."""

import keras
import numpy as np
import pytest

from sasa_tf.keras import SASAResNetClassifier
from tests.layers.int8_models import int8_model, run_in_litert

pytestmark = pytest.mark.slow


def _accuracy(logits, labels):
  return 100 * np.mean(np.argmax(logits.reshape(len(labels), -1), axis=1) == labels)


@pytest.mark.parametrize("border", ["zero", "mask"])
def test_full_integer_classifier_of_digits(border):
  datasets = pytest.importorskip("sklearn.datasets", reason="the digits come with scikit-learn")
  images, labels = datasets.load_digits(return_X_y=True)
  order = np.random.default_rng(0).permutation(len(labels))
  images = images[order].reshape(-1, 8, 8, 1).astype("float32") / 8.0 - 1.0
  labels = labels[order]
  keras.utils.set_random_seed(0)
  model = SASAResNetClassifier(
    26,
    10,
    (8, 8, 1),
    stem="conv_small",
    width_multiplier=0.25,
    kernel_size=5,
    num_heads=4,
    border=border,
    group_strides=(1, 2, 1, 1),
  )
  model.compile(
    keras.optimizers.Adam(2e-3),
    keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    jit_compile=False,
  )
  model.fit(images[:1437], labels[:1437], batch_size=64, epochs=12, verbose=0)
  tested, expected = images[1437:], labels[1437:]
  in_float = _accuracy(model.predict(tested, verbose=0), expected)
  examples = [images[i : i + 1] for i in range(100)]
  content = int8_model(lambda image: model(image, training=False), examples)
  in_int8 = _accuracy(run_in_litert(content, tested[:, None]), expected)
  print(f"border {border}: float {in_float:.2f} %, int8 {in_int8:.2f} %")
  assert in_float > 95
  assert in_int8 >= in_float - 1
