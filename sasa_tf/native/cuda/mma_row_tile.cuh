// Row tiles: the MMA tiles of the kernels for small images, in which the queries, keys and values
// of a whole image of one head lie in shared memory (sm_90, bf16, heads 32 and 64 wide).
//
// Rows of an image are padded to 16 columns, or to 8 where its width allows. A row tile is 16
// queries of one head, the M = 16 rows of mma.m16n8k16: one row of 16 columns, or two of 8. Its
// windows reach whole rows of keys, so the column part of the position bias is the same for all of
// them, and the row part is one number per query and row of keys:
//     logit[q, (a, b)] = q.k + columns[q, b] + rows[q, a]
// The column part initializes the accumulators of QK^T, and the row part is added to the exponent.
// Masks are minus infinity in one of the two.
#ifndef SASA_TF_NATIVE_CUDA_MMA_ROW_TILE_CUH_
#define SASA_TF_NATIVE_CUDA_MMA_ROW_TILE_CUH_

#include <cuda_runtime.h>

#include <cstdint>

#include "cuda/element_types.cuh"
#include "cuda/mma_fragment.cuh"
#include "cuda/ptx.cuh"
#include "cuda/tile_scheduler.cuh"
#include "cuda/tma.cuh"
#include "local_attention.h"

namespace sasa {
namespace {

constexpr float kMinusInfinity = -__builtin_huge_valf();

// kColumns: 16 or 8, to which the rows of an image are padded.
template <int kKernel_, int kHeadDim_, int kColumns_>
struct RowTileTraits {
  using Element = Bfloat16;
  static constexpr int kKernel = kKernel_, kHalo = kKernel / 2;
  static constexpr int kHeadDim = kHeadDim_, kColumns = kColumns_;
  static_assert(kKernel <= 7 && (kColumns == 16 || kColumns == 8));
  static constexpr int kHeadChunks = kHeadDim / 8;  // of 16 bytes
  static constexpr int kSteps = kHeadDim / 16;      // of the products over the channels
  static constexpr int kTableSteps = kSteps / 2;
  static constexpr int kPixelBytes = 2 * kHeadDim;
  static constexpr int kTileBytes = 16 * kPixelBytes;
  static constexpr int kRowBytes = kColumns * kPixelBytes;  // of the image
  static constexpr int kTileRows = 16 / kColumns;           // rows of the image in a row tile
  static constexpr int kKeyRows = kKernel + kTileRows - 1;  // that its windows reach
  static constexpr int kBlocks = kColumns / 8;              // of 8 keys, in a row of keys

  // Byte offset of a chunk in an image in shared memory, with the swizzle of TMA. It is the same
  // for pixels that are a multiple of 8 apart.
  __device__ static constexpr uint32_t SwizzledOffset(int pixel, int chunk) {
    return pixel * kPixelBytes + (chunk ^ (pixel * kHeadChunks / 8 % kHeadChunks)) * 16;
  }
};

// The problem as the kernels need it. An item is an image of one head.
struct RowTileGrid {
  int height, width;
  FastDivmod heads;
  int items, row_tiles;  // row tiles of an item
  bool mask_border;
  float scale;
  int pool_shift;  // log2 of the pool size
};

template <typename Traits>
RowTileGrid MakeRowTileGrid(const LocalAttentionProblem& p) {
  RowTileGrid g = {};
  g.height = p.height;
  g.width = p.width;
  g.heads = FastDivmod(p.heads);
  g.items = p.batch * p.heads;
  g.row_tiles = CeilDiv(p.height, Traits::kTileRows);
  g.mask_border = p.mask_border;
  g.scale = p.scale;
  g.pool_shift = p.pool_size / 2;
  return g;
}

// The tensor map of an array of `parts` packed parts, with boxes of `tiles` row tiles.
template <typename Traits>
bool EncodeRowTileMap(const LocalAttentionProblem& p, const void* data, int parts, int tiles,
                      TensorMap& map) {
  TensorMapDesc desc = {};
  desc.data = data;
  desc.images = p.batch;
  desc.height = p.height;
  desc.width = p.width;
  desc.channels = p.heads * Traits::kHeadDim;
  desc.pixel_stride = desc.channels * parts;
  desc.box_channels = Traits::kHeadDim;
  desc.box_columns = Traits::kColumns;
  desc.box_rows = tiles * Traits::kTileRows;
  return EncodeTensorMap(desc, map);
}

// A row tile as A operands [16, 16] of two chunks each.
template <typename Traits>
using RowTileFragment = uint32_t[Traits::kSteps][4];

// Where a lane's 16 bytes of ldmatrix.x4 are, from the first pixel of a row tile, or of two blocks
// of keys, on. kPixelsFirst: matrices 0 and 1 are 8 pixels each of one chunk; otherwise, two chunks
// of 8 pixels. The chunks of step `i` are at an XOR with 32 i.
template <typename Traits, bool kPixelsFirst>
__device__ inline uint32_t RowTileLdmatrixOffset(const MmaLane& lane) {
  const int block = kPixelsFirst ? lane.matrix_lo : lane.matrix_hi;
  const int chunk = kPixelsFirst ? lane.matrix_hi : lane.matrix_lo;
  return Traits::SwizzledOffset(8 * block + lane.ldmatrix_row, chunk);
}

// Loads the row tile at `smem`; `offset`: RowTileLdmatrixOffset<Traits, true>.
template <typename Traits>
__device__ inline void LoadRowTile(uint32_t smem, uint32_t offset, RowTileFragment<Traits>& a) {
#pragma unroll
  for (int i = 0; i < Traits::kSteps; ++i) LdmatrixX4(smem + (offset ^ 32 * i), a[i]);
}

}  // namespace
}  // namespace sasa

#endif  // SASA_TF_NATIVE_CUDA_MMA_ROW_TILE_CUH_
