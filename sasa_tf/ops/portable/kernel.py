"""One forward kernel of local attention as text, compiled for the sizes of one layer."""

from __future__ import annotations

import dataclasses
import functools
import os

from sasa_tf.native import limits, portable
from sasa_tf.ops.portable import ptx
from sasa_tf.ops.portable.tile_configs import TileConfig, tile_config
from sasa_tf.ops.portable.triton_ir import triton_module
from sasa_tf.ops.window import WindowGeometry

missing_compiler = portable.missing_compiler

# Environment variable, see `PortableKernel.uses_tensor_cores`.
ALL_TENSOR_CORES = "SASA_TF_EXPORT_TENSOR_CORES"

# Names of sasa::DType and of MLIR, by that of TensorFlow.
_DTYPES = {"float32": (0, "f32"), "bfloat16": (1, "bf16"), "float16": (2, "f16")}
_SIMT_GRID, _SIMT_CTAS_PER_SM = 132 * 24, 3


@dataclasses.dataclass(frozen=True)
class PortableKernel:
  """Everything that the text of a kernel depends on.

  Attributes:
    dtype: name of the dtype of query, key, value and output.
    image: (H, W).
    heads: N.
    head_dim: D.
    geometry: the window.
    scale: multiplies the query.
    has_key: whether the logits have the content term q.k. Query, key and value are one array
      [B, H, W, 3, N, D] (2 without keys).
    has_relative: whether the logits have the relative term q.r.
    pool_size: 2 if the kernel averages its output over blocks of 2 x 2 pixels, else 1.
    config: the tiles on tensor cores; None selects them.
  """

  dtype: str
  image: tuple[int, int]
  heads: int
  head_dim: int
  geometry: WindowGeometry
  scale: float
  has_key: bool = True
  has_relative: bool = True
  pool_size: int = 1
  config: TileConfig | None = None

  @property
  def element(self) -> str:
    """Returns MLIR's name of the dtype."""
    return _DTYPES[self.dtype][1]

  @functools.cached_property
  def operand_elements(self) -> list[str]:
    """Returns the element types of the kernel's arrays: QKV, tables, batch size, output."""
    return [self.element, *["f32"] * (2 * self.has_relative), "i32", self.element]

  @property
  def uses_tensor_cores(self) -> bool:
    """Returns whether the kernel is on tensor cores.

    With SASA_TF_EXPORT_TENSOR_CORES=all, as in the library if its tiles fit. Otherwise for windows
    of 7 and heads of 8 or more: the other kernels have run on an emulated GPU only.
    """
    kernel_size = self.geometry.kernel_size
    is_proven = kernel_size == (7, 7) and self.head_dim >= 8
    if not is_proven and os.environ.get(ALL_TENSOR_CORES) != "all":
      return False
    shape = (None, *self.image, self.heads, self.head_dim)
    supported = limits.uses_tensor_cores(self.dtype, kernel_size, shape, self.scale)
    return supported and self._tiles is not None

  @property
  def _tiles(self) -> TileConfig | None:
    if self.config is not None:
      return self.config
    return tile_config(self.geometry.kernel_size[0], self.head_dim, self.image[1])

  @property
  def grid(self) -> int:
    """Returns the number of CTAs, for any batch size."""
    tiles = self._tiles
    return tiles.grid(self.head_groups) if tiles and self.uses_tensor_cores else _SIMT_GRID

  @property
  def head_groups(self) -> int:
    """Returns the number of CTAs that must be a divisor of the grid."""
    if not self.uses_tensor_cores:
      return 1
    return -(-self.heads // (2 if self.head_dim <= 16 else 1))

  @functools.cached_property
  def macros(self) -> dict[str, str | int]:
    """Returns the macros that native/cuda/portable_forward.cuh is compiled with."""
    macros: dict[str, str | int] = {
      "SASA_HEIGHT": self.image[0],
      "SASA_WIDTH": self.image[1],
      "SASA_HEADS": self.heads,
      "SASA_HEAD_DIM": self.head_dim,
      "SASA_KERNEL_ROWS": self.geometry.kernel_size[0],
      "SASA_KERNEL_COLUMNS": self.geometry.kernel_size[1],
      "SASA_DILATION_ROWS": self.geometry.dilation_rate[0],
      "SASA_DILATION_COLUMNS": self.geometry.dilation_rate[1],
      "SASA_MASK_BORDER": int(self.geometry.border == "mask"),
      "SASA_HAS_KEY": int(self.has_key),
      "SASA_HAS_RELATIVE": int(self.has_relative),
      "SASA_SCALE": f"{self.scale:.9e}f",
      "SASA_DTYPE": _DTYPES[self.dtype][0],
      "SASA_POOL_SIZE": self.pool_size,
      "SASA_USES_TENSOR_CORES": int(self.uses_tensor_cores),
    }
    tiles = self._tiles
    if not self.uses_tensor_cores or tiles is None:
      return macros | {
        "SASA_MIN_CTAS_PER_SM": _SIMT_CTAS_PER_SM,
      }
    return macros | {
      "SASA_WARPS": tiles.warps,
      "SASA_TILE_COLUMNS": tiles.tile_columns,
      "SASA_MIN_CTAS_PER_SM": tiles.min_ctas_per_sm,
      "SASA_STAGED_STORE": int(tiles.staged_store),
      "SASA_SPLIT_ROWS": int(tiles.split_rows),
      "SASA_COMPACT_BUFFER": int(tiles.compact_buffer),
    }

  @functools.cached_property
  def ptx(self) -> str:
    """Returns the kernel as PTX.

    Raises:
      UserError: nvcc is not installed, or failed.
    """
    return ptx.normalize(portable.compile_kernel(self.macros))

  @property
  def threads(self) -> int:
    """Returns the threads of a CTA."""
    return ptx.threads(self.ptx)

  @property
  def warps(self) -> int:
    """Returns the warps of a CTA for Triton: a power of two, of which some may be idle."""
    return 1 << (-(-self.threads // 32) - 1).bit_length()

  @property
  def triton_ir(self) -> str:
    """Returns the kernel as Triton IR.

    Raises:
      UserError: nvcc is not installed, or failed.
    """
    assembly = ptx.inline_assembly(self.ptx, len(self.operand_elements))
    return triton_module(assembly, self.operand_elements, 32 * self.warps)
