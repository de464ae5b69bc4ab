"""String arguments that layers and models share."""

from typing import Literal

from sasa_tf.ops.types import Border, ImplementationName

__all__ = ["Border", "ImplementationName", "Positions", "StemVariant"]

Positions = Literal["relative", "absolute", "none"]
StemVariant = Literal["mixture", "standalone", "conv_values"]
