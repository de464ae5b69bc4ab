// What dK/dV needs of the queries besides Q and dO: q.r, LSE and delta, in shared memory.
//
// In dK/dV the MMA tiles are of keys and the halo tiles of queries, so the logits are transposed: a
// query is a column of S^T [16 keys, 8 queries of a halo column]. Its statistics are rows of small
// B operands, which one-hot A operands select from for each key (see OneHotSelectors).
#ifndef SASA_TF_NATIVE_CUDA_MMA_QUERY_STATS_CUH_
#define SASA_TF_NATIVE_CUDA_MMA_QUERY_STATS_CUH_

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>

#include "cuda/element_types.cuh"
#include "cuda/mma_fragment.cuh"
#include "cuda/mma_relative_tables.cuh"
#include "cuda/mma_smem_load.cuh"
#include "cuda/mma_traits.cuh"
#include "cuda/mma_warp_tile.cuh"
#include "cuda/opaque_register.cuh"
#include "cuda/ptx.cuh"
#include "cuda/tile_scheduler.cuh"

namespace sasa {
namespace {

// Words of two packed 16-bit elements. For each head six planes of a word per query:
//   0 to 3: q.r of the row table with two neighboring rows of keys each, in fp16;
//   4 (kLse): -LSE divided by the scale, so that it can be added to the logits before scaling, as
//      the sum of two fp16 elements;
//   5 (kDelta): -delta, as the sum of two bf16 elements.
// For wide heads, then four words per query with q.r of the column table, 7 fp16 elements. Where
// the query's column is odd they follow an unused element, so that the elements of two neighboring
// columns of keys are always in one word.
template <typename Traits>
struct QueryStats {
  using Element = typename Traits::Element;
  static constexpr bool kTwoHeads = Traits::kTileHeads == 2;
  static constexpr int kLse = 4, kDelta = 5, kPlanes = 6;
  // Words from column to column of queries. Odd, so that the queries of a row lie in different
  // banks, and those of the second head in the remaining banks.
  static constexpr int kColumnStride = Traits::kBufferRows | 1;
  // Words from plane to plane: 8 queries of a column lie in different banks in four planes.
  static constexpr int kPlaneStride = (Traits::kSmemColumns * kColumnStride + 23) / 32 * 32 + 8;
  static constexpr int kHeadStride = kPlanes * kPlaneStride;
  // Of the words with the column table's q.r. Words before the first and after the last are read.
  static constexpr int kBiasColumnStride = 4 * Traits::kBufferRows, kBiasPadding = 4;
  static constexpr int kColumnBias = kHeadStride + kBiasPadding;
  static constexpr int kWords =
      kTwoHeads ? 2 * kHeadStride
                : kColumnBias + Traits::kSmemColumns * kBiasColumnStride + kBiasPadding;
  static constexpr int kBytes = kWords * 4;
  static_assert(kPlaneStride >= Traits::kSmemColumns * kColumnStride && kHeadStride % 32 == 16);
  // Words from what the first half of a fragment's rows is about to what the second half is: the
  // second head, or the next column.
  static constexpr int kHalfStride = kTwoHeads ? kHeadStride : kColumnStride;

  // Clears the column bias once: unused elements are read and must be finite.
  __device__ static void Clear(uint32_t* words) {
    if constexpr (!kTwoHeads) {
      for (int i = kHeadStride + threadIdx.x; i < kWords; i += Traits::kThreads) words[i] = 0;
    }
  }

  // Starts to load LSE and -delta of the new rows as float32, which Compute converts in place.
  __device__ static void CpAsyncLoad(const TileGrid& g, const CtaTile& tile,
                                     const SmemRowBuffer<Traits>& buffer, const MmaLane& lane,
                                     const float* lse, const float* minus_delta, uint32_t words) {
    constexpr int kPixels = kWarpSize / Traits::kTileHeads;  // of a row, at once
    const int head = lane.id % Traits::kTileHeads, column = lane.id / Traits::kTileHeads;
    const bool valid = tile.head + head < g.heads;
    words += (head * kHeadStride + column * kColumnStride) * 4;
#pragma unroll 1
    for (int y = buffer.FirstNewRow() + threadIdx.x / kWarpSize; y < Traits::kSmemRows;
         y += Traits::kWarps) {
      const int slot = buffer.Slot(y);
      const bool row_valid = valid && tile.RowInImage(y - kHalo);
      int64_t pixel =
          tile.Offset(1) + head + (y - kHalo) * g.row_stride + (column - kHalo) * g.column_stride;
#pragma unroll
      for (int i = 0; i < (Traits::kSmemColumns + kPixels - 1) / kPixels; ++i) {
        const int x = i * kPixels + column;
        if (x >= Traits::kSmemColumns) break;
        const bool pixel_valid = row_valid && tile.ColumnInImage(x - kHalo);
        const uint32_t to = words + (i * kPixels * kColumnStride + slot) * 4;
        CpAsync4(to + kLse * kPlaneStride * 4, lse + pixel, pixel_valid);
        CpAsync4(to + kDelta * kPlaneStride * 4, minus_delta + pixel, pixel_valid);
        pixel += kPixels * g.column_stride;
      }
    }
  }

  // The relative tables as B operands, and the accumulator that q.r starts from: zeros, but
  // kMaskedBias for the entry after the row table's last.
  struct TableFragments {
    uint32_t rows[Traits::kTableChunks], columns[Traits::kTableChunks];
    float init[4];

    __device__ TableFragments(const RelativeTables<Traits>& tables, const MmaLane& lane) {
      const auto word = [&](const Element* entry) {
        return reinterpret_cast<const uint32_t*>(entry)[lane.pair];
      };
#pragma unroll
      for (int c = 0; c < Traits::kTableChunks; ++c) {
        rows[c] = word(tables.Row(lane.row, c));
        columns[c] = word(tables.Column(lane.row, c));
      }
      init[0] = init[2] = 0.f;
      init[1] = init[3] = lane.pair == 3 ? kMaskedBias : 0.f;
    }
  };

  // Computes q.r of the new rows, and converts LSE and delta, after these and the queries have
  // arrived. `queries`: the address of their buffer.
  __device__ static void Compute(const TileGrid& g, const CtaTile& tile,
                                 const SmemRowBuffer<Traits>& buffer, uint32_t queries,
                                 const TableFragments& tables, float inverse_scale,
                                 const MmaLane& lane, uint32_t* words) {
    // A product is of 8 rows, of two heads or of two columns.
    constexpr int kColumns = 2 / Traits::kTileHeads, kStride = Traits::kWarps * kColumns;
    static_assert(Traits::kOverlapRows % 2 == 0 && Traits::kTileRows % 2 == 0);
    static_assert(kStride % 4 == 0);
    // The statistic that the lane converts.
    const int half = lane.pair % 2, next_column = kTwoHeads ? 0 : half;
    const bool is_lse = lane.pair < 2;
    const int previous_lane = (lane.id + kWarpSize - 1) % kWarpSize;
    const auto from_previous = [&](float x) { return __shfl_sync(kFullMask, x, previous_lane); };
#pragma unroll 1
    for (int first = buffer.FirstNewRow(); first < Traits::kSmemRows; first += 8) {
      const int y = first + lane.row, slot = buffer.Slot(y);
      const bool in_tile = y < Traits::kSmemRows, odd = y % 2;
      const bool row_valid =
          tile.RowInImage(y - kHalo) && (!kTwoHeads || tile.head + half < g.heads);
      int x = threadIdx.x / kWarpSize * kColumns;
      // Addresses for ldmatrix: with two heads, the first chunk of both, else two chunks of two
      // columns.
      const int pixel = buffer.Slot(first + lane.ldmatrix_row) * Traits::kSmemPitch + x;
      uint32_t from =
          queries + (kTwoHeads ? Traits::SwizzledOffset(pixel, lane.matrix_lo * Traits::kHeadChunks)
                               : Traits::SwizzledOffset(pixel + lane.matrix_lo, lane.matrix_hi));
      uint32_t* row_bias = words + lane.pair * kPlaneStride + x * kColumnStride + slot;
      uint32_t* stat = words + (is_lse ? kLse : kDelta) * kPlaneStride + half * kHalfStride +
                       x * kColumnStride + slot;
      uint32_t* column_bias = words + kColumnBias + x * kBiasColumnStride + slot * 4 + lane.pair;
#pragma unroll 2
      for (; x < Traits::kSmemColumns; x += kStride) {
        const float value = in_tile ? __uint_as_float(*stat) : 0.f;
        float row_products[4], column_products[4];
        if constexpr (kTwoHeads) {
          uint32_t q[2];
          LdmatrixX2(from, q[0], q[1]);
          MmaM16N8K8<Element>(row_products, tables.init, q[0], q[1], tables.rows[0]);
        } else {
#pragma unroll
          for (int c = 0; c < Traits::kHeadChunks; c += 2) {
            const bool is_row = c < Traits::kTableChunks, is_first = c % Traits::kTableChunks == 0;
            auto& products = is_row ? row_products : column_products;
            const auto& b = is_row ? tables.rows : tables.columns;
            const auto& sum = !is_first ? const_cast<const float (&)[4]>(products)
                              : is_row  ? tables.init
                                        : kZeros;
            uint32_t q[4];
            LdmatrixX4(from ^ c * 16, q);
            MmaM16N8K16<Element>(products, sum, q[0], q[1], q[2], q[3], b[c % Traits::kTableChunks],
                                 b[c % Traits::kTableChunks + 1]);
          }
        }
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          // Pairs of rows of keys begin at even rows, so the query's row determines which two table
          // entries form a pair.
          const float low = row_products[2 * i], high = row_products[2 * i + 1];
          const float previous = from_previous(high);
          const uint32_t word = PackX2<__half>(odd ? previous : low, odd ? low : high);
          if (in_tile) row_bias[i * kHalfStride] = word;
        }
        if constexpr (!kTwoHeads) {
          const float previous = from_previous(column_products[3]);
          const uint32_t even = PackX2<__half>(column_products[0], column_products[1]);
          const uint32_t odd = PackX2<__half>(lane.pair ? previous : 0.f, column_products[2]);
          if (in_tile) column_bias[0] = even;
          if (in_tile) column_bias[kBiasColumnStride] = odd;
        }
        uint32_t word;
        if (is_lse) {
          // The probabilities of a query outside the image are zero.
          const bool valid = row_valid && tile.ColumnInImage(x + next_column - kHalo);
          const float bias = valid ? -value * inverse_scale : kMaskedBias;
          word = PackX2<__half>(bias, bias - __half2float(__float2half(bias)));
        } else {
          word = PackX2<__nv_bfloat16>(value, value - __bfloat162float(__float2bfloat16(value)));
        }
        if (in_tile) *stat = word;
        from = (from ^ Traits::SwizzleXor(kStride)) + kStride * Traits::kPixelBytes;
        row_bias += kStride * kColumnStride;
        stat += kStride * kColumnStride;
        column_bias += kStride * kBiasColumnStride;
      }
    }
  }

  // The offset of a lane's word of a B operand [8, 8 queries of a halo column], for the query in
  // buffer row `slot`. Pairs of lanes hold q.r and -LSE, of the first head and of the second, or of
  // the only head twice.
  __device__ static int RowBiasOffset(const MmaLane& lane, int slot) {
    const int plane = lane.pair % 2 ? kLse : 3 - lane.row / 2;
    return (kTwoHeads ? lane.pair / 2 * kHeadStride : 0) + plane * kPlaneStride + slot;
  }
  // -delta of the first head, then of the second; the words of the other two lanes are not
  // selected.
  __device__ static int DeltaOffset(const MmaLane& lane, int slot) {
    return (kTwoHeads ? lane.pair % 2 * kHeadStride : 0) + kDelta * kPlaneStride + slot;
  }
  // q.r of the column table with the lane's two columns of keys, in halo column 0; and from there
  // to another halo column.
  __device__ static int ColumnBiasOffset(const MmaLane& lane, int slot) {
    return kColumnBias + slot * 4 + lane.pair + kHalo;
  }
  __device__ static constexpr int ColumnBiasStep(int halo_column) {
    return halo_column * kBiasColumnStride - halo_column / 2;
  }
};

// A operands that select the statistics of a halo column of queries for each key of an MMA tile.
// They are the same for all MMA tiles.
template <typename Traits>
struct OneHotSelectors {
  static constexpr bool kTwoHeads = Traits::kTileHeads == 2;
  uint32_t row_bias[2];     // q.r of the row table, and -LSE
  uint32_t column_bias[2];  // q.r of the column table, with wide heads
  uint32_t delta[2];

  __device__ OneHotSelectors(const MmaLane& lane, const WarpTileIterator<Traits>& mma_tiles) {
    const uint32_t low = PackX2<__half>(1.f, 0.f), high = PackX2<__half>(0.f, 1.f);
    const uint32_t both = PackX2<__nv_bfloat16>(1.f, 1.f);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      // The first of two heads, and the only head, have their statistics in the first lanes.
      const int first = kTwoHeads ? 2 * half : 0;
      uint32_t select = 0;
      if (lane.pair == first) select = mma_tiles.row[half] ? high : low;
      if (lane.pair == first + 1) select = low | high;
      row_bias[half] = OpaqueRegister(select, lane, kTagSelectRowBias + half);
      select = mma_tiles.column / 2 == lane.pair ? (mma_tiles.column % 2 ? high : low) : 0u;
      column_bias[half] = OpaqueRegister(select, lane, kTagSelectColumnBias + half);
      delta[half] =
          OpaqueRegister(lane.pair == first / 2 ? both : 0u, lane, kTagSelectDelta + half);
    }
  }
};

}  // namespace
}  // namespace sasa

#endif  // SASA_TF_NATIVE_CUDA_MMA_QUERY_STATS_CUH_
