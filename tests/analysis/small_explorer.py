"""A small model and images for tests of the attention explorer, without Model Garden."""

import keras
import numpy as np
import tensorflow as tf

import sasa_tf.keras
from sasa_tf.analysis.attention.prepared_image import PreparedImage

SIZE = (32, 48)


class SmallModel:
  """What the explorer uses of `TrainedModel`, for a model with random weights."""

  def __init__(self, *, is_detector=False, attention=True):
    keras.utils.set_random_seed(1)
    image = keras.Input((*SIZE, 3))
    layers = sasa_tf.keras
    if attention:
      x = layers.AttentionStem(8, num_heads=2, name="stem")(image)
      x = keras.layers.MaxPooling2D(4)(x)
      x = layers.LocalSelfAttention2D(
        16, 5, num_heads=4, strides=2, kernel_initializer="he_normal", name="group1_block1_spatial"
      )(x)
      x = layers.LocalSelfAttention2D(
        16, 3, num_heads=2, border="mask", name="group2_block1_spatial"
      )(x)
    else:
      x = keras.layers.Conv2D(4, 3)(image)
    self.model = keras.Model(image, x, name="small")
    self.is_detector = is_detector

  def read_image(self, path):
    """Returns smooth noise that depends on the path."""
    random = np.random.default_rng(len(path))
    size = self.model.inputs[0].shape[1:3]
    noise = tf.image.resize(random.uniform(0, 255, (6, 9, 3)), size, "bicubic")
    pixels = np.clip(noise.numpy(), 0, 255).astype(np.uint8)
    return PreparedImage(path, pixels, (tf.cast(pixels, tf.float32) / 64 - 2)[None])

  def predict(self, image):
    """Returns three detections, the last with a low score, or four probabilities."""
    del image
    if not self.is_detector:
      return {"probs": np.array([0.05, 0.6, 0.1, 0.25])}
    return {
      "detection_boxes": np.array([[4, 8, 16, 24], [20, 30, 31, 47], [0, 0, 9, 9]], np.float32),
      "detection_scores": np.array([0.9, 0.6, 0.1], np.float32),
      "detection_classes": np.array([1, 2, 1]),
      "num_detections": np.array(3),
    }

  def name_of(self, label):
    """Returns a name that HTML must escape."""
    return f"</script><b>{label}"


class ResNet50(SmallModel):
  """The paper's classifier, with weights that give windows of different entropies."""

  def __init__(self):
    super().__init__(attention=False)
    self.model = sasa_tf.keras.SASAResNetClassifier(50, 4, stem="attention")
    random = np.random.default_rng(0)
    for weight in self.model.weights:
      if weight.name in ("query_kernel", "relative_rows", "relative_columns"):
        weight.assign(weight * random.uniform(0.5, 4))
