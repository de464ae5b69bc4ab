"""Configuration of the backbone."""

import dataclasses

from official.modeling import hyperparams
from official.vision.configs import backbones


@dataclasses.dataclass
class SASAResNet(hyperparams.Config):
  """Arguments of `sasa_tf.tf_keras.SASAResNet`, which documents them."""

  model_id: int = 50
  stem: str = "conv"
  attention_groups: list[int] = dataclasses.field(default_factory=lambda: [1, 2, 3, 4])
  width_multiplier: float = 1.0
  kernel_size: int | list[int] = 7
  num_heads: int = 8
  positions: str = "relative"
  content: bool = True
  border: str = "zero"
  implementation: str = "auto"
  stem_variant: str = "mixture"
  stem_num_heads: int = 4
  stem_num_mixtures: int = 8
  baseline: str = "conv"
  group_strides: list[int] = dataclasses.field(default_factory=lambda: [1, 2, 2, 2])
  zero_init_residual: bool = True
  locality_strength: float = 0.0


@dataclasses.dataclass
class Backbone(backbones.Backbone):
  """Model Garden's backbones and `sasa_resnet`."""

  type: str | None = "sasa_resnet"
  sasa_resnet: SASAResNet = dataclasses.field(default_factory=SASAResNet)
