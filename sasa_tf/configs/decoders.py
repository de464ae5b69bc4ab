"""Configuration of the decoder."""

import dataclasses

from official.modeling import hyperparams
from official.vision.configs import decoders


@dataclasses.dataclass
class SASAFPN(hyperparams.Config):
  """Arguments of `sasa_tf.tf_keras.SASAFPN`, which documents them."""

  num_filters: int = 256
  spatial: str = "attention"
  kernel_size: int | list[int] = 7
  num_heads: int = 8
  positions: str = "relative"
  border: str = "zero"
  implementation: str = "auto"
  shortcut: bool = False
  locality_strength: float = 0.0
  use_batch_norm: bool = True


@dataclasses.dataclass
class Decoder(decoders.Decoder):
  """Model Garden's decoders and `sasa_fpn`."""

  type: str | None = "sasa_fpn"
  sasa_fpn: SASAFPN = dataclasses.field(default_factory=SASAFPN)
