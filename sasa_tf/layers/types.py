"""Types of the string arguments that layers and models share."""

from typing import Literal

Positions = Literal["relative", "absolute", "none"]
Border = Literal["zero", "mask"]
Implementation = Literal["auto", "reference", "blocked", "fused"]
StemVariant = Literal["mixture", "standalone", "conv_values"]
