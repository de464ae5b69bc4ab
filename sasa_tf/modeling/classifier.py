"""Image classifier: the ResNet backbone, global pooling and a dense layer (paper Sec. 4.1)."""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any, Literal, get_args

import tensorflow as tf

from sasa_tf.modeling.pooled_stem import PooledStemMixin
from sasa_tf.modeling.presets import PresetMixin

Pooling = Literal["avg", "max"]
POOLINGS: tuple[str, ...] = get_args(Pooling)

# Mean and standard deviation of ImageNet's red, green and blue values, in the range 0 to 255. Model
# Garden normalizes images with the same constants.
MEAN_RGB = (0.485 * 255, 0.456 * 255, 0.406 * 255)
STDDEV_RGB = (0.229 * 255, 0.224 * 255, 0.225 * 255)


class SASAResNetClassifierBase(PooledStemMixin, PresetMixin):
  """Classifies images with a `SASAResNet`, global pooling and a dense layer.

  Input: images [B, H, W, 3], RGB values in the range 0 to 255, normalized by `preprocess`: minus
  ImageNet's mean, divided by ImageNet's standard deviation, per channel.

  Output: float32 logits [B, num_classes], also under mixed precision; what `classifier_activation`
  returns, if it is set.

  The model is a flat functional model: its layers are those of the backbone, then "pool", "dropout"
  (if `dropout_rate` is positive) and "classifier".

  Attributes:
    backbone: the `SASAResNet`, which shares its layers and weights with this model.

  Examples:
    >>> model = SASAResNetClassifier(26, num_classes=10, input_shape=(32, 32, 3), stem="conv_small")
    >>> model.compile(
    ...   optimizer=keras.optimizers.SGD(0.05, momentum=0.9, nesterov=True),
    ...   loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    ...   metrics=["accuracy"],
    ... )
    >>> images, labels = keras.datasets.cifar10.load_data()[0]
    >>> model.fit(model.preprocess(images), labels, batch_size=128, epochs=1)
    >>> model.save("classifier.keras")
  """

  _backbone: Callable[..., Any]

  def __init__(
    self,
    model_id: int = 50,
    num_classes: int = 1000,
    input_shape: tuple[int | None, int | None, int] = (224, 224, 3),
    classifier_activation: Any = None,
    dropout_rate: float = 0.0,
    pooling: Pooling = "avg",
    *,
    kernel_initializer: Any = "VarianceScaling",
    kernel_regularizer: Any = None,
    name: str | None = None,
    trainable: bool = True,
    **backbone_arguments: Any,
  ):
    """Creates the classifier.

    Args:
      model_id: number of layers of the backbone, 26, 38 or 50.
      num_classes: number of classes.
      input_shape: (H, W, C) of the images; H and W may be None.
      classifier_activation: activation of the dense layer, such as "softmax"; None for logits.
      dropout_rate: fraction of the pooled features that is dropped in training.
      pooling: "avg" for global average pooling, "max" for global max pooling.
      kernel_initializer: of convolutions, projections and the dense layer.
      kernel_regularizer: of convolutions, projections and the dense layer.
      name: of the model.
      trainable: whether the weights are trained.
      **backbone_arguments: arguments of `SASAResNet`, such as `stem`, `attention_groups`,
        `kernel_size` and `positions`.

    Raises:
      TypeError: there is no such argument.
      ValueError: an argument is out of range.
    """
    if not isinstance(num_classes, int) or num_classes < 1:
      raise ValueError(f"num_classes must be a positive int; received {num_classes!r}.")
    if not 0 <= dropout_rate < 1:
      raise ValueError(f"dropout_rate must be at least 0 and below 1; received {dropout_rate!r}.")
    if pooling not in POOLINGS:
      raise ValueError(f"pooling must be one of {POOLINGS}; received {pooling!r}.")
    keras = self._keras
    layers = keras.layers
    backbone = self._backbone(
      model_id,
      input_shape=input_shape,
      kernel_initializer=kernel_initializer,
      kernel_regularizer=kernel_regularizer,
      **backbone_arguments,
    )
    config = backbone.get_config()
    del config["name"], config["trainable"]
    activation = keras.activations.get(classifier_activation)

    pool = layers.GlobalAveragePooling2D if pooling == "avg" else layers.GlobalMaxPooling2D
    features = pool(data_format="channels_last", name="pool")(backbone.outputs[-1])
    if dropout_rate:
      features = layers.Dropout(dropout_rate, name="dropout")(features)
    outputs = layers.Dense(
      num_classes,
      activation=activation,
      kernel_initializer=config["kernel_initializer"],
      kernel_regularizer=config["kernel_regularizer"],
      dtype="float32",
      name="classifier",
    )(features)
    super().__init__(inputs=backbone.inputs[0], outputs=outputs, name=name, trainable=trainable)

    # In a namespace, because Keras would add a model that is an attribute to `layers`.
    self._untracked = types.SimpleNamespace(backbone=backbone)
    self._save_init_args(
      num_classes=num_classes,
      classifier_activation=keras.activations.serialize(activation),
      dropout_rate=dropout_rate,
      pooling=pooling,
      **config,
    )

  @property
  def backbone(self) -> Any:
    """The `SASAResNet`, which shares its layers and weights with this model."""
    return self._untracked.backbone

  @staticmethod
  def preprocess(images: Any) -> tf.Tensor:
    """Normalizes images with ImageNet's mean and standard deviation.

    Args:
      images: [..., H, W, 3], RGB values in the range 0 to 255, of any dtype.

    Returns:
      float32 [..., H, W, 3].
    """
    return (tf.cast(images, tf.float32) - MEAN_RGB) / STDDEV_RGB
