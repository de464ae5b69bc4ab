// The position bias of row tiles (see mma_row_tile.cuh), and the softmax's terms of keys outside of
// the image.
//
// Entries are those of a relative table, times the queries: accumulators [16 queries, 8 entries].
// A lane has entries 2 `pair` and 2 `pair` + 1 of two queries.
#ifndef SASA_TF_NATIVE_CUDA_MMA_ROW_BIAS_CUH_
#define SASA_TF_NATIVE_CUDA_MMA_ROW_BIAS_CUH_

#include <cstdint>

#include "cuda/element_types.cuh"
#include "cuda/mma_fragment.cuh"
#include "cuda/mma_row_tile.cuh"
#include "cuda/opaque_register.cuh"
#include "cuda/ptx.cuh"
#include "cuda/warp_reduce.cuh"

namespace sasa {
namespace {

// Computes the position bias of row tiles, by way of shared memory.
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
      const uint32_t place = ColumnInside(g, lane, i) ? index : kUnused + lane.id;
      column_index_[i] = OpaqueRegister(place, lane, kTagRowTileColumn + i);
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
  // scale_log2. With two rows of the image, it is minus infinity where the row of keys is not in
  // the window.
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

// The keys outside of the image that the windows of row tiles reach, if the border is not masked:
// their logits are sums of a row and a column entry, and their values are zero. The exponentials of
// the entries are summed over rows and over columns; the sum over the keys is (rows inside) x
// (columns outside) + (rows outside) x (all columns).
template <typename Traits>
struct OutsideKeys {
  using Bias = RowTileBias<Traits>;
  static constexpr float kMinEntry = -100.f;  // in log2, far from underflow

  float column_outside[4];  // 1 for the lane's entries that are for columns outside, else 0
  float has_entry[2];       // 1 if the lane's even or odd entries are in the tables, else 0

  __device__ OutsideKeys(const RowTileGrid& g, const MmaLane& lane) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const bool outside = Bias::IsEntry(lane, i) && !Bias::ColumnInside(g, lane, i);
      column_outside[i] = OpaqueRegister(outside ? 1.f : 0.f, lane, kTagColumnOutside + i);
    }
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const bool always = i == 0 && Traits::kKernel == 7;
      const float x = Bias::IsEntry(lane, i) ? 1.f : 0.f;
      has_entry[i] = always ? 1.f : OpaqueRegister(x, lane, kTagHasEntry + i);
    }
  }

  // The lane's parts of the sums of the exponentials. Returns whether they are accurate.
  __device__ bool Sum(const RowTileGrid& g, const MmaLane& lane, const Bias& bias, int top,
                      float scale_log2, float (&parts)[2]) const {
    const bool all_inside =
        top >= Traits::kHalo && top + Traits::kTileRows - 1 + Traits::kHalo < g.height;
    float min = bias.row_entries[0];  // of all entries; overflow shows in the sum
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float rows[2], columns[2];
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const float row = bias.row_entries[2 * half + i];
        const float column = bias.column_entries[2 * half + i];
        min = fminf(min, fminf(row, column));
        rows[i] = Exp2Approx(row * scale_log2) * has_entry[i];
        columns[i] = Exp2Approx(column * scale_log2);
      }
      const float of_columns_outside = QuadReduceSum(columns[0] * column_outside[2 * half] +
                                                      columns[1] * column_outside[2 * half + 1]);
      parts[half] = (rows[0] + rows[1]) * of_columns_outside;
      if (!all_inside) {
        const float of_all_columns =
            QuadReduceSum(columns[0] * has_entry[0] + columns[1] * has_entry[1]);
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          // An entry that the table does not have is zero.
          const bool inside = Bias::RowInside(g, lane, 2 * half + i, top);
          parts[half] += inside ? 0.f : rows[i] * (of_all_columns - of_columns_outside);
        }
      }
    }
    return min * scale_log2 > kMinEntry;
  }

  // Raises the maximum of each half's logits by theirs, and computes the same as Sum, with the
  // maximum subtracted.
  __device__ static void SumWithMax(const RowTileGrid& g, const MmaLane& lane, const Bias& bias,
                                    int top, float scale_log2, float (&row_max)[2],
                                    float (&parts)[2]) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      // Rows inside and columns outside, then rows outside and all columns.
      float row_values[2][2], column_values[2][2], maxima[2];
#pragma unroll
      for (int set = 0; set < 2; ++set) {
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          const int entry = 2 * half + i;
          const bool is_entry = Bias::IsEntry(lane, entry);
          const bool has_row = is_entry && Bias::RowInside(g, lane, entry, top) == (set == 0);
          const bool has_column = is_entry && (set == 1 || !Bias::ColumnInside(g, lane, entry));
          const float row = bias.row_entries[entry] * scale_log2;
          const float column = bias.column_entries[entry] * scale_log2;
          row_values[set][i] = has_row ? row : kMaskedLogit;
          column_values[set][i] = has_column ? column : kMaskedLogit;
        }
        maxima[set] = QuadMax(fmaxf(column_values[set][0], column_values[set][1]));
        row_max[half] =
            fmaxf(row_max[half],
                  QuadMax(fmaxf(row_values[set][0], row_values[set][1])) + maxima[set]);
      }
      parts[half] = 0.f;
#pragma unroll
      for (int set = 0; set < 2; ++set) {
        const float columns = QuadReduceSum(Exp2Approx(column_values[set][0] - maxima[set]) +
                                             Exp2Approx(column_values[set][1] - maxima[set]));
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          parts[half] += columns * Exp2Approx(row_values[set][i] + maxima[set] - row_max[half]);
        }
      }
    }
  }
};

}  // namespace
}  // namespace sasa

#endif  // SASA_TF_NATIVE_CUDA_MMA_ROW_BIAS_CUH_
