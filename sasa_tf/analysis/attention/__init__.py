"""What the attention layers of a model attend to: windows, statistics, rollout, positions."""

from sasa_tf.analysis.attention.geometry import MapGeometry
from sasa_tf.analysis.attention.maps import LayerMaps, attention_maps
from sasa_tf.analysis.attention.positions import position_logits, relative_embeddings
from sasa_tf.analysis.attention.rollout import Rollout, attention_rollout
from sasa_tf.analysis.attention.statistics import WindowStatistics

__all__ = [
  "LayerMaps",
  "MapGeometry",
  "Rollout",
  "WindowStatistics",
  "attention_maps",
  "attention_rollout",
  "position_logits",
  "relative_embeddings",
]
