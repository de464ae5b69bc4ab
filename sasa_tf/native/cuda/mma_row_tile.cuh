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
#include "cuda/opaque_register.cuh"
#include "cuda/ptx.cuh"
#include "cuda/tile_scheduler.cuh"
#include "cuda/tma.cuh"
#include "local_attention.h"

namespace sasa {
namespace {

constexpr int kMaxRowTileSide = 16;  // rows and columns of an image
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
  static constexpr int kTileRows = 16 / kColumns;             // rows of the image in a row tile
  static constexpr int kKeyRows = kKernel + kTileRows - 1;    // that its windows reach
  static constexpr int kBlocks = kColumns / 8;                // of 8 keys, in a row of keys

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

// Computes the position bias of row tiles, by way of shared memory. An entry is one of a relative
// table: the lane has entries 2 `pair` and 2 `pair` + 1 of its two rows.
template <typename Traits>
class RowTileBias {
 public:
  static constexpr int kColumnBytes = 16 * Traits::kColumns * 4, kRowBytes = 16 * 8 * 4;
  static constexpr int kBytes = kColumnBytes + kRowBytes + kWarpSize * 4;  // per warp

  float row_entries[4], column_entries[4];  // q . table, an accumulator [16, 8 entries]

  // `smem`: the warp's kBytes, which this fills. The tables [K, D/2] may be null.
  __device__ RowTileBias(const RowTileGrid& g, const MmaLane& lane, char* smem,
                         const float* relative_rows, const float* relative_columns)
      : columns_(reinterpret_cast<float*>(smem)), rows_(columns_ + kColumnBytes / 4) {
    constexpr int kHalf = Traits::kHeadDim / 2, kUnused = (kColumnBytes + kRowBytes) / 4;
    for (int i = lane.id; i < kUnused; i += kWarpSize) columns_[i] = kMinusInfinity;
    const auto pack = [&](const float* table, int channel) {
      if (table == nullptr || lane.row >= Traits::kKernel) return 0u;
      const float* from = table + lane.row * kHalf + channel;
      return PackX2<Bfloat16>(from[0], from[1]);
    };
#pragma unroll
    for (int i = 0; i < 2 * Traits::kTableSteps; ++i) {
      row_table_[i / 2][i % 2] = pack(relative_rows, 8 * i + 2 * lane.pair);
      column_table_[i / 2][i % 2] = pack(relative_columns, 8 * i + 2 * lane.pair);
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int index = ColumnIndex(lane.row + i / 2 * 8, EntryColumn(lane, i));
      column_index_[i] = OpaqueRegister(
          static_cast<uint32_t>(ColumnInside(g, lane, i) ? index : kUnused + lane.id), lane, i);
    }
    __syncwarp();
  }

  // The row or column of keys that entry `i` of the lane is for, in the image, of a row tile whose
  // first row is `top`.
  __device__ static int EntryRow(const MmaLane& lane, int i, int top) {
    return top + i / 2 * (Traits::kTileRows - 1) + 2 * lane.pair + i % 2 - Traits::kHalo;
  }
  __device__ static int EntryColumn(const MmaLane& lane, int i) {
    const int column = lane.row + (Traits::kTileRows == 1 ? i / 2 * 8 : 0);
    return column + 2 * lane.pair + i % 2 - Traits::kHalo;
  }
  // Whether the table has the entry, and whether it has and the keys lie in the image.
  __device__ static bool IsEntry(const MmaLane& lane, int i) {
    return 2 * lane.pair + i % 2 < Traits::kKernel;
  }
  __device__ static bool RowInside(const RowTileGrid& g, const MmaLane& lane, int i, int top) {
    return IsEntry(lane, i) && static_cast<unsigned>(EntryRow(lane, i, top)) <
                                   static_cast<unsigned>(g.height);
  }
  __device__ static bool ColumnInside(const RowTileGrid& g, const MmaLane& lane, int i) {
    return IsEntry(lane, i) &&
           static_cast<unsigned>(EntryColumn(lane, i)) < static_cast<unsigned>(g.width);
  }

  // Computes the bias for the queries of a row tile. `columns`: an accumulator for each block of a
  // row of keys, minus infinity where a key is not in the window or the image.
  __device__ void Compute(const RowTileGrid& g, const MmaLane& lane,
                          const RowTileFragment<Traits>& q, int top, float scale_log2,
                          float (&columns)[Traits::kBlocks][4]) {
#pragma unroll
    for (int i = 0; i < Traits::kTableSteps; ++i) {
      const auto& a = q[i];
      const auto& b = q[Traits::kTableSteps + i];
      const auto accumulate = [&](float(&sum)[4]) -> const float(&)[4] {
        return i == 0 ? kZeros : const_cast<const float(&)[4]>(sum);
      };
      MmaM16N8K16<Bfloat16>(column_entries, accumulate(column_entries), b[0], b[1], b[2], b[3],
                            column_table_[i][0], column_table_[i][1]);
      MmaM16N8K16<Bfloat16>(row_entries, accumulate(row_entries), a[0], a[1], a[2], a[3],
                            row_table_[i][0], row_table_[i][1]);
    }
    __syncwarp();
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      columns_[column_index_[i]] = column_entries[i];  // of others nothing is read
      if constexpr (Traits::kTileRows == 2) {
        // The last row of keys is not in the first half's windows, the first not in the second's.
        const int slot = 2 * lane.pair + i % 2 + i / 2;
        if (IsEntry(lane, i)) {
          rows_[(lane.row + i / 2 * 8) * 8 + slot] =
              RowInside(g, lane, i, top) ? row_entries[i] * scale_log2 : kMinusInfinity;
        }
      } else if (i % 2 == 0) {
        *reinterpret_cast<float2*>(rows_ + (lane.row + i / 2 * 8) * 8 + 2 * lane.pair) =
            make_float2(row_entries[i] * scale_log2, row_entries[i + 1] * scale_log2);
      }
    }
    __syncwarp();
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int row = lane.row + half * 8;
#pragma unroll
      for (int block = 0; block < Traits::kBlocks; ++block) {
        const float2 two = *reinterpret_cast<const float2*>(
            columns_ + ColumnIndex(row, 8 * block + 2 * lane.pair));
        columns[block][2 * half] = two.x;
        columns[block][2 * half + 1] = two.y;
      }
    }
  }
  // The row part of a half's query for a row of keys in the image, counted from top - K / 2, times
  // scale_log2. With two rows of the image, it is minus infinity where the row of keys is not in the
  // window.
  __device__ float RowPart(const MmaLane& lane, int half, int slot) const {
    return rows_[(lane.row + half * 8) * 8 + slot];
  }
  // Subtracts a maximum from the row part of each half.
  __device__ void SubtractMax(const MmaLane& lane, const float (&max)[2]) const {
    __syncwarp();
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      rows_[(lane.row + i / 2 * 8) * 8 + 2 * lane.pair + i % 2] -= max[i / 2];
    }
    __syncwarp();
  }

 private:
  // [16 queries][columns of the image], swizzled against bank conflicts.
  __device__ static int ColumnIndex(int row, int column) {
    return row * Traits::kColumns + (column ^ (Traits::kColumns == 16 ? row / 2 % 2 * 8 : 0));
  }

  float* columns_;
  float* rows_;               // [16 queries][8 rows of keys]
  uint32_t column_index_[4];  // of the lane's entries in columns_
  uint32_t row_table_[Traits::kTableSteps][2], column_table_[Traits::kTableSteps][2];
};

}  // namespace
}  // namespace sasa

#endif  // SASA_TF_NATIVE_CUDA_MMA_ROW_TILE_CUH_
