// The position bias of forward and dQ: q.r, and the masks of window and border, which are added to
// QK^T.
//
// q.r is separable: a row part, for each halo row, and a column part, for each halo column. The row
// part initializes the accumulators of all blocks of a row. The column part, in fp16, is multiplied
// by one-hot columns and accumulated. Masks are the bias kMaskedBias in one of the two.
#ifndef SASA_TF_NATIVE_CUDA_MMA_POSITION_BIAS_CUH_
#define SASA_TF_NATIVE_CUDA_MMA_POSITION_BIAS_CUH_

#include <cstdint>

#include "cuda/mma_epilogue.cuh"
#include "cuda/mma_fragment.cuh"
#include "cuda/mma_relative_tables.cuh"
#include "cuda/mma_traits.cuh"
#include "cuda/mma_warp_tile.cuh"
#include "cuda/opaque_register.cuh"
#include "cuda/ptx.cuh"
#include "cuda/tma.cuh"

namespace sasa {
namespace {

// Converts between relative and absolute columns of matrices of 16 rows and 16-bit elements, by way
// of shared memory: entry r of the column table belongs to halo column r + the row's own column
// (the "skewing" of Music Transformer). For wide heads.
template <typename Traits>
struct SkewTranspose {
  static constexpr int kColumns = 8 * Traits::kColumnGroups;
  // Elements from row to row; an odd number of 16 bytes, for no bank conflicts.
  static constexpr int kStride = kColumns <= 16 ? 24 : 40;
  static constexpr int kBytes = 16 * kStride * 2;
  uint16_t* smem;
  int column;  // of the lane's row

  __device__ SkewTranspose(void* smem, int column)
      : smem(static_cast<uint16_t*>(smem)), column(column) {}

  // From accumulator fragments over the table entries to A fragments over halo columns. Columns
  // outside a row's window are undefined.
  __device__ void ToHaloColumns(const MmaLane& lane,
                                const float (&entries)[Traits::kEntryGroups][4],
                                uint32_t (&a)[2 * Traits::kColumnGroups]) const {
    __syncwarp();
#pragma unroll
    for (int group = 0; group < Traits::kEntryGroups; ++group) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int entry = 8 * group + 2 * lane.pair + i % 2;
        uint16_t* to = smem + (lane.row + i / 2 * 8) * kStride + column + entry;
        if (entry < Traits::kKernel) *to = ConvertTo<Float16>(entries[group][i]).bits;
      }
    }
    __syncwarp();
    const uint32_t from = SmemAddress(smem + (lane.id % 16) * kStride + lane.matrix_hi * 8);
    if constexpr (Traits::kColumnGroups >= 2) {
      uint32_t first[4];
      LdmatrixX4(from, first);
#pragma unroll
      for (int i = 0; i < 4; ++i) a[i] = first[i];
    }
    if constexpr (Traits::kColumnGroups % 2 == 1) {
      constexpr int kLast = Traits::kColumnGroups - 1;
      LdmatrixX2(from + kLast * 16, a[2 * kLast], a[2 * kLast + 1]);
    }
  }
  // From accumulator fragments over halo columns to packed table entries, for each half of the
  // rows.
  template <typename T>
  __device__ void ToTableEntries(const MmaLane& lane,
                                 const float (&columns)[Traits::kColumnGroups][4],
                                 uint32_t (&entries)[2][Traits::kEntryGroups]) const {
    // Whether entries that the window does not have would be read past the columns.
    constexpr bool kPastColumns = Traits::kMmaTileColumns - 1 + 8 * Traits::kEntryGroups > kColumns;
    __syncwarp();
#pragma unroll
    for (int i = 0; i < 2 * Traits::kColumnGroups; ++i) {
      const int half = i % 2, group = i / 2;
      uint16_t* to = smem + (lane.row + half * 8) * kStride + group * 8 + 2 * lane.pair;
      *reinterpret_cast<uint32_t*>(to) =
          PackX2<T>(columns[group][2 * half], columns[group][2 * half + 1]);
    }
    __syncwarp();
#pragma unroll
    for (int i = 0; i < 2 * Traits::kEntryGroups; ++i) {
      const int half = i % 2, group = i / 2, entry = 8 * group + 2 * lane.pair;
      const uint16_t* from = smem + (lane.row + half * 8) * kStride + column + entry;
      const auto at = [&](int i) -> uint32_t {
        return !kPastColumns || entry + i < Traits::kKernel ? from[i] : 0;
      };
      entries[half][group] = at(0) | at(1) << 16;
    }
  }
};

template <typename Traits>
struct PositionBias {
  using Element = typename Traits::Element;
  // The bias of an MMA tile: an accumulator fragment for each row of blocks, and A fragments
  // [16, 8 halo columns] in fp16.
  using RowBias = float[Traits::kRowBlocks][4];
  using ColumnBias = uint32_t[2 * Traits::kColumnGroups];
  static constexpr bool kFourRows = Traits::kMmaTileRows == 4;
  static constexpr int kOneHots = 8 / Traits::kBlockColumns;

  uint32_t row_table, column_table;             // addresses that the lane passes to ldmatrix
  float row_mask[Traits::kRowBlocks][4];        // 0 or kMaskedBias, by halo row
  uint32_t column_mask[Traits::kColumnGroups];  // bits of the halo columns that are not masked
  uint32_t one_hot[kOneHots];

  __device__ PositionBias(const RelativeTables<Traits>& tables, const MmaLane& lane,
                          const WarpTileIterator<Traits>& mma_tiles) {
    // The row table's matrices are for rows of the MMA tile: the first two, or all four.
    const int row = Traits::BlockRow(lane.ldmatrix_row);
    if constexpr (kFourRows) {
      row_table = SmemAddress(tables.Row(row - lane.matrix_lo - 2 * lane.matrix_hi));
    } else if constexpr (Traits::kTileHeads == 2) {
      row_table = SmemAddress(tables.Row(row - lane.matrix_lo));
    } else if constexpr (Traits::kTableChunks == 1) {
      row_table = SmemAddress(tables.Row(row - lane.matrix_lo));
    } else {
      row_table = SmemAddress(tables.Row(row - lane.matrix_hi, lane.matrix_lo));
    }
    if constexpr (Traits::kTileHeads == 2) {
      const int right = Traits::kColumnGroups == 2 ? lane.matrix_hi : 0;
      column_table = SmemAddress(tables.Column(8 * right + lane.ldmatrix_row - lane.matrix_lo));
    } else {
      column_table = SmemAddress(
          tables.Column(lane.ldmatrix_row, Traits::kTableChunks == 1 ? 0 : lane.matrix_lo));
    }
    MaskColumns(lane, mma_tiles, [](int) { return true; });
    MaskRows(lane, mma_tiles, [](int) { return true; });
#pragma unroll
    for (int i = 0; i < kOneHots; ++i) {
      const int column = i * Traits::kBlockColumns + Traits::BlockColumn(lane.row);
      const uint32_t one = column % 2 ? PackX2<Float16>(0.f, 1.f) : PackX2<Float16>(1.f, 0.f);
      one_hot[i] = OpaqueRegister(lane.pair == column / 2 ? one : 0u, lane, kTagColumnOneHot + i);
    }
  }

  // With border "mask": also masks the rows outside the image, for a CTA tile.
  __device__ void MaskRows(const CtaTile& tile, const MmaLane& lane,
                           const WarpTileIterator<Traits>& mma_tiles) {
    MaskRows(lane, mma_tiles,
             [&](int row) { return tile.RowInImage(mma_tiles.top + row - Traits::kHalo); });
  }
  // The same for columns, for the MMA tile whose first column is `left`.
  __device__ void MaskColumns(const CtaTile& tile, const MmaLane& lane,
                              const WarpTileIterator<Traits>& mma_tiles, int left) {
    MaskColumns(lane, mma_tiles,
                [&](int column) { return tile.ColumnInImage(left + column - Traits::kHalo); });
  }

  // Computes the bias of an MMA tile.
  __device__ void Compute(const AFragment<Traits>& q, const MmaLane& lane,
                          const WarpTileIterator<Traits>& mma_tiles,
                          const SkewTranspose<Traits>& skew, RowBias& row_bias,
                          ColumnBias& column_bias) const {
    if constexpr (Traits::kTileHeads == 2 || kFourRows) {
      ComputeSelectedRows(q, mma_tiles, row_bias);
    } else {
      ComputeRowsByHalf(q, row_bias);
    }
    if constexpr (Traits::kTileHeads == 2) {
      ComputeSelectedColumns(q, mma_tiles, column_bias);
    } else {
      ComputeSkewedColumns(q, lane, skew, column_bias);
    }
    const uint32_t masked = PackX2<Float16>(kMaskedBias, kMaskedBias);
#pragma unroll
    for (int i = 0; i < 2 * Traits::kColumnGroups; ++i) {
      column_bias[i] = (column_bias[i] & column_mask[i / 2]) | (masked & ~column_mask[i / 2]);
    }
  }

  // s [16, 8 pixels of a step's block] = the bias.
  __device__ void InitLogits(int step, int block, const RowBias& row_bias,
                             const ColumnBias& column_bias, float (&s)[4]) const {
    const int column_block = Traits::ColumnBlock(step) + block;
    const int a = column_block / kOneHots * 2;
    MmaM16N8K8<Float16>(s, row_bias[Traits::RowBlock(step)], column_bias[a], column_bias[a + 1],
                        one_hot[column_block % kOneHots]);
  }

 private:
  template <typename Valid>
  __device__ void MaskRows(const MmaLane& lane, const WarpTileIterator<Traits>& mma_tiles,
                           Valid valid) {
#pragma unroll
    for (int block = 0; block < Traits::kRowBlocks; ++block) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int row = block * Traits::kBlockRows + Traits::BlockRow(2 * lane.pair + i % 2);
        const int first = mma_tiles.row[i / 2];
        const bool in_window = row >= first && row < first + Traits::kKernel;
        row_mask[block][i] = OpaqueRegister(in_window && valid(row) ? 0.f : kMaskedBias, lane,
                                            kTagRowBias + 4 * block + i);
      }
    }
  }
  template <typename Valid>
  __device__ void MaskColumns(const MmaLane& lane, const WarpTileIterator<Traits>& mma_tiles,
                              Valid valid) {
    const auto mask = [&](int column) {
      const bool in_window =
          column >= mma_tiles.column && column < mma_tiles.column + Traits::kKernel;
      return in_window && valid(column) ? 0xffffu : 0u;
    };
#pragma unroll
    for (int group = 0; group < Traits::kColumnGroups; ++group) {
      const int column = 8 * group + 2 * lane.pair;
      column_mask[group] = mask(column) | mask(column + 1) << 16;
    }
  }

  __device__ static uint32_t Select(bool condition, uint32_t x) { return condition ? x : 0u; }

  // A product for each row of the MMA tile, with the table moved by that row; in its A operand the
  // queries of the other rows are zero. Two products are one of K = 16. Where the halves have
  // different rows, both are computed for all queries, and each half takes its own.
  __device__ void ComputeSelectedRows(const AFragment<Traits>& q,
                                      const WarpTileIterator<Traits>& mma_tiles,
                                      RowBias& row_bias) const {
    constexpr bool kSameRows = Traits::kHalfRows == 0;  // of both halves
    const int own_row = mma_tiles.row[0];
#pragma unroll
    for (int block = 0; block < Traits::kRowBlocks; ++block) {
      float second_half[4];
#pragma unroll
      for (int chunk = 0; chunk < Traits::kTableChunks; ++chunk) {
        uint32_t b[4];
        const uint32_t table =
            row_table + (block * Traits::kBlockRows + chunk * Traits::kRowEntries) * 16;
        if constexpr (kFourRows) {
          LdmatrixX4(table, b);
        } else {
          LdmatrixX2(table, b[0], b[1]);
        }
#pragma unroll
        for (int rows = 0; rows < Traits::kMmaTileRows; rows += 2) {
          const bool is_second = !kSameRows && rows > 0;
          uint32_t a[4];
#pragma unroll
          for (int i = 0; i < 4; ++i) {
            a[i] = Select(own_row == (kSameRows ? rows : 0) + i / 2, q.Get(i % 2, chunk));
          }
          float(&sum)[4] = is_second ? second_half : row_bias[block];
          const bool is_first = chunk == 0 && (rows == 0 || is_second);
          const float(&c)[4] = is_first ? row_mask[block] : const_cast<const float(&)[4]>(sum);
          MmaM16N8K16<Element>(sum, c, a[0], a[1], a[2], a[3], b[rows], b[rows + 1]);
        }
      }
      if constexpr (!kSameRows) {
        row_bias[block][2] = second_half[2];
        row_bias[block][3] = second_half[3];
      }
    }
  }

  // For wide heads whose halves are a row of pixels each, which the row table is moved by.
  __device__ void ComputeRowsByHalf(const AFragment<Traits>& q, RowBias& row_bias) const {
#pragma unroll
    for (int block = 0; block < Traits::kRowBlocks; ++block) {
      float second_half[4];
      if constexpr (Traits::kTableChunks == 1) {
        const auto& a = q.a[0];
        uint32_t b[2];
        LdmatrixX2(row_table + block * Traits::kBlockRows * 16, b[0], b[1]);
        MmaM16N8K8<Element>(row_bias[block], row_mask[block], a[0], a[1], b[0]);
        MmaM16N8K8<Element>(second_half, row_mask[block], a[0], a[1], b[1]);
      }
#pragma unroll
      for (int i = 0; i < Traits::kTableChunks / 2; ++i) {
        const auto& a = q.a[i];
        uint32_t b[4];
        LdmatrixX4(row_table + (2 * i * Traits::kRowEntries + block * Traits::kBlockRows) * 16, b);
        const auto accumulate = [&](float(&sum)[4]) -> const float(&)[4] {
          return i == 0 ? row_mask[block] : const_cast<const float(&)[4]>(sum);
        };
        MmaM16N8K16<Element>(row_bias[block], accumulate(row_bias[block]), a[0], a[1], a[2], a[3],
                             b[0], b[1]);
        MmaM16N8K16<Element>(second_half, accumulate(second_half), a[0], a[1], a[2], a[3], b[2],
                             b[3]);
      }
      row_bias[block][2] = second_half[2];
      row_bias[block][3] = second_half[3];
    }
  }

  // As ComputeSelectedRows, for the columns of narrow heads.
  __device__ void ComputeSelectedColumns(const AFragment<Traits>& q,
                                         const WarpTileIterator<Traits>& mma_tiles,
                                         ColumnBias& column_bias) const {
    static_assert(Traits::kTileHeads == 1 || Traits::kColumnGroups <= 2);
    float sums[Traits::kColumnGroups][4];
#pragma unroll
    for (int columns = 0; columns < Traits::kMmaTileColumns / 2; ++columns) {
      uint32_t a[4], b[4];
      if constexpr (Traits::kColumnGroups == 2) {
        LdmatrixX4(column_table - 2 * columns * 16, b);
      } else {
        LdmatrixX2(column_table - 2 * columns * 16, b[0], b[1]);
      }
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        a[i] = Select(mma_tiles.column == 2 * columns + i / 2,
                      q.Get(i % 2, Traits::kColumnTableChunk));
      }
#pragma unroll
      for (int group = 0; group < Traits::kColumnGroups; ++group) {
        const auto& c = columns == 0 ? kZeros : const_cast<const float(&)[4]>(sums[group]);
        MmaM16N8K16<Element>(sums[group], c, a[0], a[1], a[2], a[3], b[2 * group],
                             b[2 * group + 1]);
      }
    }
#pragma unroll
    for (int i = 0; i < 2 * Traits::kColumnGroups; ++i) {
      column_bias[i] = PackX2<Float16>(sums[i / 2][i % 2 * 2], sums[i / 2][i % 2 * 2 + 1]);
    }
  }

  __device__ void ComputeSkewedColumns(const AFragment<Traits>& q, const MmaLane& lane,
                                       const SkewTranspose<Traits>& skew,
                                       ColumnBias& column_bias) const {
    float entries[Traits::kEntryGroups][4];
    if constexpr (Traits::kTableChunks == 1) {
      const auto& a = q.a[0];
#pragma unroll
      for (int group = 0; group < Traits::kEntryGroups; ++group) {
        uint32_t b[2];
        LdmatrixX2(column_table + 8 * group * 16, b[0], b[1]);
        MmaM16N8K8<Element>(entries[group], kZeros, a[2], a[3], b[0]);
      }
    }
#pragma unroll
    for (int i = 0; i < Traits::kTableChunks / 2; ++i) {
      const auto& a = q.a[Traits::kColumnTableChunk / 2 + i];
#pragma unroll
      for (int group = 0; group < Traits::kEntryGroups; ++group) {
        uint32_t b[2];
        LdmatrixX2(column_table + (2 * i * Traits::kColumnEntries + 8 * group) * 16, b[0], b[1]);
        const auto& c = i == 0 ? kZeros : const_cast<const float(&)[4]>(entries[group]);
        MmaM16N8K16<Element>(entries[group], c, a[0], a[1], a[2], a[3], b[0], b[1]);
      }
    }
    skew.ToHaloColumns(lane, entries, column_bias);
  }
};

// The shared memory of forward and dQ, in order: the buffers of keys and values, the relative
// tables, a staging buffer per warp, and the mbarrier.
template <typename Traits>
struct QuerySmemLayout {
  static constexpr int kStagingBytes =
      Traits::kTileHeads == 1 && SkewTranspose<Traits>::kBytes > TileStore<Traits>::kBytes
          ? SkewTranspose<Traits>::kBytes
          : TileStore<Traits>::kBytes;
  static constexpr int kTables = 2 * Traits::kBufferBytes;
  static constexpr int kStaging = kTables + RelativeTables<Traits>::kBytes;
  static constexpr int kBarrier = kStaging + Traits::kWarps * kStagingBytes;
  static constexpr int kBytes = kBarrier + TmaBarrier::kBytes;
  static_assert(kBarrier % TmaBarrier::kBytes == 0);
};

}  // namespace
}  // namespace sasa

#endif  // SASA_TF_NATIVE_CUDA_MMA_POSITION_BIAS_CUH_
