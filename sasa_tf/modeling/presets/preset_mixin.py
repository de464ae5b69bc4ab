"""`from_preset` and `save_to_preset`, in the manner of KerasHub."""

from __future__ import annotations

import inspect
import os
from collections.abc import Sequence
from typing import Any

from sasa_tf.errors import UserError
from sasa_tf.modeling.presets.preset import find_preset, packaged_presets
from sasa_tf.modeling.presets.preset_writing import StoredDtype, write_preset
from sasa_tf.modeling.serializable import SerializableModel
from sasa_tf.modeling.weights import assign_weights, weight_values

# Arguments that only matter for training from random weights, which each Keras version serializes
# in its own way, and those of Keras.
_NOT_SAVED = ("kernel_initializer", "kernel_regularizer", "name", "trainable")


class PresetMixin(SerializableModel):
  """Mixin of models that are stored as presets."""

  @classmethod
  def from_preset(
    cls, preset: str | os.PathLike, load_weights: bool = True, **overrides: Any
  ) -> Any:
    """Creates a model from a preset.

    Args:
      preset: the name of a packaged preset, see `presets`, or a directory that `save_to_preset` of
        either Keras version wrote.
      load_weights: False for random weights.
      **overrides: arguments of the constructor that replace those of the preset, such as
        `input_shape` or `implementation`. With `load_weights`, they must not change the shapes of
        the weights.

    Returns:
      A model of this class. A backbone may be created from the preset of a classifier.

    Raises:
      UserError: there is no such preset, it is invalid or of another class, an override is no
        argument of the model, or the weights do not fit it.
    """
    found = find_preset(preset)
    accepted = cls._preset_classes()
    if found.class_name not in accepted:
      raise UserError(
        f"the preset {os.fspath(preset)!r} is of the class {found.class_name}, but {cls.__name__} "
        f"was to be created from it, which takes {' or '.join(accepted)}."
      )
    config = found.config
    if found.class_name != cls.__name__:
      parameters = inspect.signature(cls.__init__).parameters
      config = {key: value for key, value in config.items() if key in parameters}
    try:
      model = cls(**{**config, **overrides})
      if load_weights:
        is_part = found.class_name != cls.__name__
        assign_weights(model, found.read_weights(), ignore_others=is_part)
    except UserError:
      raise
    except (TypeError, ValueError) as error:
      raise UserError(f"{cls.__name__}.from_preset({os.fspath(preset)!r}): {error}") from error
    return model

  @classmethod
  def _preset_classes(cls) -> tuple[str, ...]:
    """Returns the classes whose presets this class can be created from."""
    return (cls.__name__,)

  @classmethod
  def presets(cls) -> tuple[str, ...]:
    """Returns the names of the packaged presets that this class can be created from."""
    names = packaged_presets()
    return tuple(name for name in names if find_preset(name).class_name in cls._preset_classes())

  def save_to_preset(
    self,
    preset_dir: str | os.PathLike,
    *,
    labels: Sequence[str] | None = None,
    crop_fraction: float | None = 1.0,
    dtype: StoredDtype = "float32",
    model_card: str | None = None,
  ) -> None:
    """Saves configuration and weights to a directory, for `from_preset` of either Keras version.

    Initializers and regularizers are not part of a preset.

    Args:
      preset_dir: directory to create, or of a preset to replace.
      labels: class names in the order of the labels.
      crop_fraction: part of the image's shorter side that is cropped from its center and resized to
        the input's size. None resizes the whole image.
      dtype: of the stored weights; float16 halves the size of the file.
      model_card: text of README.md: data, recipe, accuracy and limits.

    Raises:
      UserError: the directory exists and holds no preset.
    """
    config = {key: value for key, value in self.get_config().items() if key not in _NOT_SAVED}
    write_preset(
      preset_dir,
      class_name=type(self).__name__,
      config=config,
      weights=weight_values(self),
      labels=labels,
      preprocessing={
        "image_size": list(config["input_shape"][:2]),
        "crop_fraction": crop_fraction,
      },
      dtype=dtype,
      model_card=model_card,
    )
