// What dK/dV needs of the queries besides Q and dO: q.r, LSE and delta, in shared memory.
//
// In dK/dV the MMA tiles are of keys and the halo tiles of queries, so the logits are transposed: a
// query is a column of S^T [16 keys, 8 queries of a block]. Its statistics are rows of small B
// operands, which one-hot A operands select from for each key (see OneHotSelectors).
#ifndef SASA_TF_NATIVE_CUDA_MMA_QUERY_STATS_CUH_
#define SASA_TF_NATIVE_CUDA_MMA_QUERY_STATS_CUH_

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

// Words of two packed 16-bit elements. For each head planes of a word per query:
//   kRowPlanes with q.r of the row table with two neighboring rows of keys each, in fp16;
//   kLse: -LSE divided by the scale, so that it can be added to the logits before scaling, as the
//      sum of two fp16 elements;
//   kDelta: -delta, as the sum of two bf16 elements.
// For wide heads, then kBiasWords per query with q.r of the column table, K fp16 elements. Where
// the query's column is odd they follow an unused element, so that the elements of two neighboring
// columns of keys are always in one word.
template <typename Traits>
struct QueryStats {
  using Element = typename Traits::Element;
  static constexpr bool kTwoHeads = Traits::kTileHeads == 2;
  static constexpr bool kFourRows = Traits::kMmaTileRows == 4;
  // Of MMA tiles of four rows, two planes are about a halo row; the last plane is masked.
  static constexpr int kRowPlanes = Traits::kHaloRows / 2;
  static constexpr int kLse = kRowPlanes, kDelta = kLse + 1, kPlanes = kLse + 2;
  // Words from column to column of queries. Odd, so that the queries of a row lie in different
  // banks, and those of the second head in the remaining banks.
  static constexpr int kColumnStride = Traits::kBufferRows | 1;
  // Words from plane to plane: 8 queries of a column lie in different banks in four planes.
  static constexpr int kPlaneStride = (Traits::kSmemColumns * kColumnStride + 23) / 32 * 32 + 8;
  static constexpr int kHeadStride = (kPlanes * kPlaneStride + 15) / 32 * 32 + 16;
  // Of the words with the column table's q.r. Words before the first and after the last are read.
  static constexpr int kBiasWords = Traits::kKernel / 2 + 1, kBiasPadding = 4;
  static constexpr int kBiasColumnStride = kBiasWords * Traits::kBufferRows;
  static constexpr int kColumnBias = kHeadStride + kBiasPadding;
  static constexpr int kWords =
      kTwoHeads ? 2 * kHeadStride
                : kColumnBias + Traits::kSmemColumns * kBiasColumnStride + kBiasPadding;
  static constexpr int kBytes = kWords * 4;
  static_assert(kPlaneStride >= Traits::kSmemColumns * kColumnStride &&
                kHeadStride >= kPlanes * kPlaneStride && kHeadStride % 32 == 16);
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
      const bool row_valid = valid && tile.RowInImage(y - Traits::kHalo);
      int64_t pixel = tile.Offset(1) + head + (y - Traits::kHalo) * g.row_stride +
                      (column - Traits::kHalo) * g.column_stride;
#pragma unroll
      for (int i = 0; i < (Traits::kSmemColumns + kPixels - 1) / kPixels; ++i) {
        const int x = i * kPixels + column;
        if (x >= Traits::kSmemColumns) break;
        const bool pixel_valid = row_valid && tile.ColumnInImage(x - Traits::kHalo);
        const uint32_t to = words + (i * kPixels * kColumnStride + slot) * 4;
        CpAsync4(to + kLse * kPlaneStride * 4, lse + pixel, pixel_valid);
        CpAsync4(to + kDelta * kPlaneStride * 4, minus_delta + pixel, pixel_valid);
        pixel += kPixels * g.column_stride;
      }
    }
  }

  // The relative tables as B operands by groups of entries, and the accumulators that q.r starts
  // from: zeros, but kMaskedBias for the entries after the row table's last.
  struct TableFragments {
    uint32_t rows[Traits::kEntryGroups][Traits::kTableChunks];
    uint32_t columns[Traits::kEntryGroups][Traits::kTableChunks];
    float init[Traits::kEntryGroups][4];

    __device__ TableFragments(const RelativeTables<Traits>& tables, const MmaLane& lane) {
      const auto word = [&](const Element* entry) {
        return reinterpret_cast<const uint32_t*>(entry)[lane.pair];
      };
#pragma unroll
      for (int group = 0; group < Traits::kEntryGroups; ++group) {
#pragma unroll
        for (int c = 0; c < Traits::kTableChunks; ++c) {
          rows[group][c] = word(tables.Row(8 * group + lane.row, c));
          columns[group][c] = word(tables.Column(8 * group + lane.row, c));
        }
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const int entry = 8 * group + 2 * lane.pair + i % 2;
          init[group][i] = entry < Traits::kKernel ? 0.f : kMaskedBias;
        }
      }
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
    constexpr int kGroups = Traits::kEntryGroups;
    static_assert(Traits::kOverlapRows % 2 == 0 && Traits::kTileRows % 2 == 0);
    static_assert(kStride % 4 == 0);
    // The statistic that the lane converts.
    const int half = lane.pair % 2, next_column = kTwoHeads ? 0 : half;
    const bool is_lse = lane.pair < 2;
    // The entry before the lane's first: of the previous lane of the quad, or before the quad's
    // first, the last of the previous group. Before the first of all, the last, which is masked.
    const int previous_lane = lane.id - lane.pair + (lane.pair + 3) % 4;
    const auto from_previous = [&](const float(&products)[kGroups][4], int group, int i) {
      const float in_group = products[group][2 * i + 1];
      const float before = products[(group + kGroups - 1) % kGroups][2 * i + 1];
      return __shfl_sync(kFullMask, lane.pair == 3 ? before : in_group, previous_lane);
    };
#pragma unroll 1
    for (int first = buffer.FirstNewRow(); first < Traits::kSmemRows; first += 8) {
      const int y = first + lane.row, slot = buffer.Slot(y);
      const bool in_tile = y < Traits::kSmemRows, odd = y % 2;
      const bool row_valid =
          tile.RowInImage(y - Traits::kHalo) && (!kTwoHeads || tile.head + half < g.heads);
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
      uint32_t* column_bias =
          words + kColumnBias + x * kBiasColumnStride + slot * kBiasWords + lane.pair;
#pragma unroll 2
      for (; x < Traits::kSmemColumns; x += kStride) {
        const float value = in_tile ? __uint_as_float(*stat) : 0.f;
        float row_products[kGroups][4], column_products[kGroups][4];
        if constexpr (kTwoHeads) {
          uint32_t q[2];
          LdmatrixX2(from, q[0], q[1]);
#pragma unroll
          for (int group = 0; group < kGroups; ++group) {
            MmaM16N8K8<Element>(row_products[group], tables.init[group], q[0], q[1],
                                tables.rows[group][0]);
          }
        } else {
#pragma unroll
          for (int c = 0; c < Traits::kHeadChunks; c += 2) {
            const bool is_row = c < Traits::kTableChunks, is_first = c % Traits::kTableChunks == 0;
            const int table_chunk = c % Traits::kTableChunks;
            uint32_t q[4];
            LdmatrixX4(from ^ c * 16, q);
#pragma unroll
            for (int group = 0; group < kGroups; ++group) {
              auto& products = is_row ? row_products[group] : column_products[group];
              const auto& b = is_row ? tables.rows[group] : tables.columns[group];
              const auto& sum = !is_first ? const_cast<const float(&)[4]>(products)
                                : is_row  ? tables.init[group]
                                          : kZeros;
              MmaM16N8K16<Element>(products, sum, q[0], q[1], q[2], q[3], b[table_chunk],
                                   b[table_chunk + 1]);
            }
          }
        }
#pragma unroll
        for (int group = 0; group < kGroups; ++group) {
          const bool in_planes = in_tile && 4 * group + lane.pair < kRowPlanes;
#pragma unroll
          for (int i = 0; i < 2; ++i) {
            // Pairs of rows of keys begin at even rows, so the query's row determines which two
            // table entries form a pair.
            const float low = row_products[group][2 * i], high = row_products[group][2 * i + 1];
            const float previous = from_previous(row_products, group, i);
            const uint32_t word = PackX2<Float16>(odd ? previous : low, odd ? low : high);
            if (in_planes) row_bias[4 * group * kPlaneStride + i * kHalfStride] = word;
          }
          if constexpr (!kTwoHeads) {
            const bool in_words = in_tile && 4 * group + lane.pair < kBiasWords;
            const auto& products = column_products[group];
            const float previous = from_previous(column_products, group, 1);
            const uint32_t even = PackX2<Float16>(products[0], products[1]);
            const bool is_first = group == 0 && lane.pair == 0;
            const uint32_t odd = PackX2<Float16>(is_first ? 0.f : previous, products[2]);
            if (in_words) column_bias[4 * group] = even;
            if (in_words) column_bias[4 * group + kBiasColumnStride] = odd;
          }
        }
        uint32_t word;
        if (is_lse) {
          // The probabilities of a query outside the image are zero.
          const bool valid = row_valid && tile.ColumnInImage(x + next_column - Traits::kHalo);
          const float bias = valid ? -value * inverse_scale : kMaskedBias;
          word = PackX2<Float16>(bias, ConversionError<Float16>(bias));
        } else {
          word = PackX2<Bfloat16>(value, ConversionError<Bfloat16>(value));
        }
        if (in_tile) *stat = word;
        from = (from ^ Traits::SwizzleXor(kStride)) + kStride * Traits::kPixelBytes;
        row_bias += kStride * kColumnStride;
        stat += kStride * kColumnStride;
        column_bias += kStride * kBiasColumnStride;
      }
    }
  }

  // The offsets of a lane's words of B operands [8, 8 queries of a block], for a row of blocks. The
  // halo tile's first row is `top` in the tile's buffer.
  struct WordOffsets {
    // q.r and -LSE, in pairs of lanes of the first head and of the second, or of the only head
    // twice. In MMA tiles of four rows two words of q.r and -LSE, of the first head.
    int row_bias;
    // -delta of the first head, then of the second; the words of the other two lanes are not
    // selected.
    int delta;
    // q.r of the column table with the lane's two columns of keys.
    int column_bias;

    __device__ WordOffsets(const MmaLane& lane, const SmemRowBuffer<Traits>& buffer, int top,
                           int row_block) {
      const int row = row_block * Traits::kBlockRows + Traits::BlockRow(lane.row);
      const int slot = buffer.Slot(top + row), column = Traits::BlockColumn(lane.row);
      const int pixel = slot + column * kColumnStride;
      int plane, head = 0;
      if constexpr (kFourRows) {
        // With the row's first two keys and last two.
        const int first =
            (row / 2 <= kRowPlanes - 2 ? kRowPlanes - 2 : 2 * kRowPlanes - 2) - row / 2;
        plane = lane.pair == 0 ? first : lane.pair == 1 ? kRowPlanes - 1 - row / 2 : kLse;
      } else {
        plane = lane.pair % 2 ? kLse : kRowPlanes - 1 - row / 2;
        head = kTwoHeads ? lane.pair / 2 : 0;
      }
      row_bias = head * kHeadStride + plane * kPlaneStride + pixel;
      delta = (kTwoHeads ? lane.pair % 2 * kHeadStride : 0) + kDelta * kPlaneStride + pixel;
      column_bias =
          kColumnBias + slot * kBiasWords + lane.pair + Traits::kHalo + column * kBiasColumnStride;
    }
  };
  // From a lane's words about the halo tile's first column to those about the first column of a
  // block.
  __device__ static constexpr int ColumnStep(int column_block) {
    return column_block * Traits::kBlockColumns * kColumnStride;
  }
  __device__ static constexpr int ColumnBiasStep(int column_block) {
    const int column = column_block * Traits::kBlockColumns;
    return column * kBiasColumnStride - column / 2;
  }
};

// A operands that select the statistics of a block of queries for each key of an MMA tile. They are
// the same for all MMA tiles.
template <typename Traits>
struct OneHotSelectors {
  static constexpr bool kTwoHeads = Traits::kTileHeads == 2;
  static constexpr bool kFourRows = Traits::kMmaTileRows == 4;
  uint32_t row_bias[2];     // q.r of the row table, and -LSE
  uint32_t column_bias[2];  // q.r of the column table, with wide heads
  uint32_t delta[2];
  uint32_t zeros[2];  // in place of the other head

  __device__ OneHotSelectors(const MmaLane& lane, const WarpTileIterator<Traits>& mma_tiles) {
    const uint32_t low = PackX2<Float16>(1.f, 0.f), high = PackX2<Float16>(0.f, 1.f);
    const uint32_t both = PackX2<Bfloat16>(1.f, 1.f);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      // The word with q.r of the key, and the word with -LSE.
      const int row = mma_tiles.row[half];
      const int first = kTwoHeads ? 2 * half : 0;  // of two heads in one operand
      const int row_word = kFourRows ? row / 2 : first, lse_word = kFourRows ? 2 : first + 1;
      uint32_t select = 0;
      if (lane.pair == row_word) select = row % 2 ? high : low;
      if (lane.pair == lse_word) select = low | high;
      row_bias[half] = OpaqueRegister(select, lane, kTagSelectRowBias + half);
      select = mma_tiles.column / 2 == lane.pair ? (mma_tiles.column % 2 ? high : low) : 0u;
      column_bias[half] = OpaqueRegister(select, lane, kTagSelectColumnBias + half);
      const int delta_word = kTwoHeads ? half : 0;
      delta[half] =
          OpaqueRegister(lane.pair == delta_word ? both : 0u, lane, kTagSelectDelta + half);
      zeros[half] = OpaqueRegister(0u, lane, kTagSelectZeros + half);
    }
  }
};

}  // namespace
}  // namespace sasa

#endif  // SASA_TF_NATIVE_CUDA_MMA_QUERY_STATS_CUH_
