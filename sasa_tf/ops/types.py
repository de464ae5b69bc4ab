"""String choices and other argument types that the functions of this package share."""

from __future__ import annotations

from typing import Literal, get_args

Border = Literal["zero", "mask"]
BORDERS: tuple[Border, ...] = get_args(Border)

Device = Literal["TPU", "GPU", "CPU"]
DEVICES: tuple[Device, ...] = get_args(Device)  # in order of preference

ImplementationName = Literal["auto", "reference", "blocked", "fused"]
IMPLEMENTATION_NAMES: tuple[ImplementationName, ...] = get_args(ImplementationName)

IntOrPair = int | tuple[int, int]  # a pair is (rows, columns)
