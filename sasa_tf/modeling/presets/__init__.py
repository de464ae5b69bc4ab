"""Presets: a model's configuration, weights, class names and preprocessing in a directory."""

from sasa_tf.modeling.presets.preset import Preset, find_preset, packaged_presets
from sasa_tf.modeling.presets.preset_mixin import PresetMixin

__all__ = ["Preset", "PresetMixin", "find_preset", "packaged_presets"]
