// The position bias of forward and dQ: q.r, and the masks of window and border, which are added to
// QK^T.
//
// q.r is separable: a row part, for each halo row, and a column part, for each halo column. The row
// part initializes the accumulators of all halo columns. The column part, in fp16, is multiplied by
// one-hot columns and accumulated. Masks are the bias kMaskedBias in one of the two.
#ifndef SASA_TF_NATIVE_CUDA_MMA_POSITION_BIAS_CUH_
#define SASA_TF_NATIVE_CUDA_MMA_POSITION_BIAS_CUH_

#include <cuda_fp16.h>

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

// Converts between relative and absolute columns of [16, 16] matrices of 16-bit elements, by way of
// shared memory: entry r of the column table belongs to halo column r + the row's own column (the
// "skewing" of Music Transformer). For wide heads.
struct SkewTranspose {
  static constexpr int kStride = 24;  // elements from row to row; no bank conflicts
  static constexpr int kBytes = 16 * kStride * 2;
  uint16_t* smem;
  int column;  // of the lane's row

  __device__ SkewTranspose(void* smem, int column)
      : smem(static_cast<uint16_t*>(smem)), column(column) {}

  // From an accumulator fragment over the 7 table entries to an A fragment over halo columns.
  // Columns outside a row's window are undefined.
  __device__ void ToHaloColumns(const MmaLane& lane, const float (&entries)[4],
                                uint32_t (&a)[4]) const {
    __syncwarp();
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      uint16_t* to = smem + (lane.row + i / 2 * 8) * kStride + column + 2 * lane.pair + i % 2;
      if (i % 2 == 0 || lane.pair < 3) *to = __half_as_ushort(__float2half(entries[i]));
    }
    __syncwarp();
    LdmatrixX4(SmemAddress(smem + (lane.id % 16) * kStride + lane.matrix_hi * 8), a);
  }
  // From accumulator fragments over halo columns 0 to 7 and 8 to 15 to packed table entries, for
  // each half of the rows.
  template <typename T>
  __device__ void ToTableEntries(const MmaLane& lane, const float (&columns)[2][4],
                                 uint32_t (&entries)[2]) const {
    __syncwarp();
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int half = i % 2, right = i / 2;
      uint16_t* to = smem + (lane.row + half * 8) * kStride + right * 8 + 2 * lane.pair;
      *reinterpret_cast<uint32_t*>(to) =
          PackX2<T>(columns[right][2 * half], columns[right][2 * half + 1]);
    }
    __syncwarp();
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const uint16_t* from = smem + (lane.row + half * 8) * kStride + column + 2 * lane.pair;
      entries[half] = from[0] | static_cast<uint32_t>(from[1]) << 16;
    }
  }
};

template <typename Traits>
struct PositionBias {
  using Element = typename Traits::Element;
  uint32_t row_table, column_table;  // addresses that the lane passes to ldmatrix
  float row_mask[4];                 // 0 or kMaskedBias, by halo row
  uint32_t column_mask[2];           // bits of the halo columns that are not masked
  uint32_t one_hot[8];

  __device__ PositionBias(const RelativeTables<Traits>& tables, const MmaLane& lane,
                          const WarpTileIterator<Traits>& mma_tiles) {
    if constexpr (Traits::kTileHeads == 2) {
      row_table = SmemAddress(tables.Row(lane.ldmatrix_row - lane.matrix_lo));
      column_table =
          SmemAddress(tables.Column(8 * lane.matrix_hi + lane.ldmatrix_row - lane.matrix_lo));
    } else {
      row_table = SmemAddress(tables.Row(lane.ldmatrix_row - lane.matrix_hi, lane.matrix_lo));
      column_table = SmemAddress(tables.Column(lane.ldmatrix_row, lane.matrix_lo));
    }
    MaskColumns(lane, mma_tiles, [](int) { return true; });
    MaskRows(lane, mma_tiles, [](int) { return true; });
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      const uint32_t one = i % 2 ? PackX2<__half>(0.f, 1.f) : PackX2<__half>(1.f, 0.f);
      one_hot[i] = OpaqueRegister(lane.pair == i / 2 ? one : 0u, lane, kTagColumnOneHot + i);
    }
  }

  // With border "mask": also masks the rows outside the image, for a CTA tile.
  __device__ void MaskRows(const CtaTile& tile, const MmaLane& lane,
                           const WarpTileIterator<Traits>& mma_tiles) {
    MaskRows(lane, mma_tiles,
             [&](int row) { return tile.RowInImage(mma_tiles.top + row - kHalo); });
  }
  // The same for columns, for the MMA tile whose first column is `left`.
  __device__ void MaskColumns(const CtaTile& tile, const MmaLane& lane,
                              const WarpTileIterator<Traits>& mma_tiles, int left) {
    MaskColumns(lane, mma_tiles,
                [&](int column) { return tile.ColumnInImage(left + column - kHalo); });
  }

  // Computes the bias of an MMA tile: of the halo rows, an accumulator fragment, and of the halo
  // columns, an A fragment [16, 16] in fp16.
  __device__ void Compute(const AFragment<Traits>& q, const MmaLane& lane,
                          const WarpTileIterator<Traits>& mma_tiles, const SkewTranspose& skew,
                          float (&row_bias)[4], uint32_t (&column_bias)[4]) const {
    if constexpr (Traits::kTileHeads == 2) {
      ComputeTwoHeads(q, mma_tiles, row_bias, column_bias);
    } else {
      ComputeOneHead(q, lane, skew, row_bias, column_bias);
    }
    const uint32_t masked = PackX2<__half>(kMaskedBias, kMaskedBias);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      column_bias[i] = (column_bias[i] & column_mask[i / 2]) | (masked & ~column_mask[i / 2]);
    }
  }

  // s [16, 8 pixels of a halo column] = the bias.
  __device__ void InitLogits(int halo_column, const float (&row_bias)[4],
                             const uint32_t (&column_bias)[4], float (&s)[4]) const {
    const int a = halo_column / 8 * 2;
    MmaM16N8K8<__half>(s, row_bias, column_bias[a], column_bias[a + 1], one_hot[halo_column % 8]);
  }

 private:
  template <typename Valid>
  __device__ void MaskRows(const MmaLane& lane, const WarpTileIterator<Traits>& mma_tiles,
                           Valid valid) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int row = 2 * lane.pair + i % 2, first = mma_tiles.row[i / 2];
      const bool in_window = row >= first && row < first + kKernel;
      row_mask[i] =
          OpaqueRegister(in_window && valid(row) ? 0.f : kMaskedBias, lane, kTagRowBias + i);
    }
  }
  template <typename Valid>
  __device__ void MaskColumns(const MmaLane& lane, const WarpTileIterator<Traits>& mma_tiles,
                              Valid valid) {
    const auto mask = [&](int column) {
      const bool in_window = column >= mma_tiles.column && column < mma_tiles.column + kKernel;
      return in_window && valid(column) ? 0xffffu : 0u;
    };
#pragma unroll
    for (int right = 0; right < 2; ++right) {
      const int column = 8 * right + 2 * lane.pair;
      column_mask[right] = mask(column) | mask(column + 1) << 16;
    }
  }

  // A product for each column of the MMA tile, with the table moved by that column; in its A
  // operand the queries of the other columns are zero. The same for rows.
  __device__ void ComputeTwoHeads(const AFragment<Traits>& q,
                                  const WarpTileIterator<Traits>& mma_tiles, float (&row_bias)[4],
                                  uint32_t (&column_bias)[4]) const {
    uint32_t b[4];
    LdmatrixX2(row_table, b[0], b[1]);
    const auto select = [](bool condition, uint32_t x) { return condition ? x : 0u; };
    const int y = mma_tiles.row[0];
    MmaM16N8K16<Element>(row_bias, row_mask, select(y == 0, q.Get(0, 0)),
                         select(y == 0, q.Get(1, 0)), select(y == 1, q.Get(0, 0)),
                         select(y == 1, q.Get(1, 0)), b[0], b[1]);
    float sums[2][4];
#pragma unroll
    for (int columns = 0; columns < Traits::kMmaTileColumns / 2; ++columns) {
      LdmatrixX4(column_table - 2 * columns * 16, b);
      uint32_t a[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        a[i] = select(mma_tiles.column == 2 * columns + i / 2,
                      q.Get(i % 2, Traits::kColumnTableChunk));
      }
#pragma unroll
      for (int right = 0; right < 2; ++right) {
        const auto& c = columns == 0 ? kZeros : const_cast<const float (&)[4]>(sums[right]);
        MmaM16N8K16<Element>(sums[right], c, a[0], a[1], a[2], a[3], b[2 * right],
                             b[2 * right + 1]);
      }
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      column_bias[i] = PackX2<__half>(sums[i / 2][i % 2 * 2], sums[i / 2][i % 2 * 2 + 1]);
    }
  }

  // Each half of the rows is a row of pixels, which the row table is moved by.
  __device__ void ComputeOneHead(const AFragment<Traits>& q, const MmaLane& lane,
                                 const SkewTranspose& skew, float (&row_bias)[4],
                                 uint32_t (&column_bias)[4]) const {
    float second_row[4], entries[4];
#pragma unroll
    for (int i = 0; i < Traits::kTableChunks / 2; ++i) {
      const auto& a = q.a[i];
      uint32_t b[4];
      LdmatrixX4(row_table + 2 * i * Traits::kRowEntries * 16, b);
      const auto accumulate = [&](const float (&c)[4], float (&sum)[4]) -> const float (&)[4] {
        return i == 0 ? c : const_cast<const float (&)[4]>(sum);
      };
      MmaM16N8K16<Element>(row_bias, accumulate(row_mask, row_bias), a[0], a[1], a[2], a[3], b[0],
                           b[1]);
      MmaM16N8K16<Element>(second_row, accumulate(row_mask, second_row), a[0], a[1], a[2], a[3],
                           b[2], b[3]);
      const auto& c = q.a[Traits::kColumnTableChunk / 2 + i];
      LdmatrixX2(column_table + 2 * i * Traits::kColumnEntries * 16, b[0], b[1]);
      MmaM16N8K16<Element>(entries, accumulate(kZeros, entries), c[0], c[1], c[2], c[3], b[0],
                           b[1]);
    }
    row_bias[2] = second_row[2];
    row_bias[3] = second_row[3];
    skew.ToHaloColumns(lane, entries, column_bias);
  }
};

// The shared memory of forward and dQ, in order: the buffers of keys and values, the relative
// tables, a staging buffer per warp, and the mbarrier.
template <typename Traits>
struct QuerySmemLayout {
  static constexpr int kStagingBytes =
      Traits::kTileHeads == 1 && SkewTranspose::kBytes > TileStore<Traits>::kBytes
          ? SkewTranspose::kBytes
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
