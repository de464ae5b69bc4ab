"""The decoder's configuration."""

import dataclasses

from official.modeling import hyperparams
from official.vision.configs import decoders


@dataclasses.dataclass
class SASAFPN(hyperparams.Config):
  """Arguments of `sasa_tf.tf_keras.SASAFPN` that a YAML file may set; see there."""

  num_filters: int = 256
  spatial: str = "attention"
  kernel_size: int = 7
  num_heads: int = 8
  positions: str = "relative"
  border: str = "zero"
  implementation: str = "auto"
  use_batch_norm: bool = True


@dataclasses.dataclass
class Decoder(decoders.Decoder):
  """Model Garden's choice of decoders, and ours."""

  type: str | None = "sasa_fpn"
  sasa_fpn: SASAFPN = dataclasses.field(default_factory=SASAFPN)
