"""Models whose attention stem pools its blocks while they are traced for export."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sasa_tf.layers import AttentionStemBase, pooling_within_stem
from sasa_tf.layers.keras_mixin import KerasMixin


class PooledStemMixin(KerasMixin):
  """Mixin of functional models with the layers "stem", "stem_norm" and "stem_pool".

  It must precede the Keras class in the list of bases.
  """

  def call(self, inputs: Any, training: Any = None, mask: Any = None) -> Any:
    """Applies the layers of the model."""
    run: Callable[..., Any] = super().call  # type: ignore[misc]
    if not self._pools_within_stem(inputs, training):
      return run(inputs, training=training, mask=mask)
    with pooling_within_stem(self.get_layer("stem_norm").gamma):
      return run(inputs, training=training, mask=mask)

  def _pools_within_stem(self, inputs: Any, training: Any) -> bool:
    # With the statistics of the batch, the batch norm needs all pixels.
    if training is not None and training is not False:
      return False
    stem = self.get_layer("stem")
    return isinstance(stem, AttentionStemBase) and stem.pools_blocks(inputs)
