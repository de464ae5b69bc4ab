// What is added to the products of queries and keys, in the kernels by queries: q.r, and what keeps
// out the pixels beyond a window.
#ifndef SASA_TF_NATIVE_CUDA_PATCH_TERMS_CUH_
#define SASA_TF_NATIVE_CUDA_PATCH_TERMS_CUH_

#include <cuda_fp16.h>

#include <cstdint>
#include <type_traits>

#include "cuda/tma.cuh"
#include "cuda/ptx.cuh"
#include "cuda/mma_epilogue.cuh"
#include "cuda/mma_attention.cuh"
#include "cuda/mma_tiles.cuh"

namespace sasa {
namespace {

// Matrices [16, 16 covered columns] of 16 bits that a warp shears in shared memory: what a row has
// of the column table's lines lies from the row's own column on.
struct Shear {
  static constexpr int kStride = 24;  // of a row; no bank conflicts
  static constexpr int kBytes = 16 * kStride * 2;
  uint16_t* memory;
  int column;  // of the lane's row

  __device__ Shear(void* memory, int column)
      : memory(static_cast<uint16_t*>(memory)), column(column) {}

  // From numbers by line, of which there are 7, to an operand by covered column. What a row has no
  // line for is whatever.
  __device__ void FromLines(const MmaLane& lane, const float (&lines)[4], uint32_t (&a)[4]) const {
    __syncwarp();
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      uint16_t* to = memory + (lane.row + i / 2 * 8) * kStride + column + 2 * lane.pair + i % 2;
      if (i % 2 == 0 || lane.pair < 3) *to = __half_as_ushort(__float2half(lines[i]));
    }
    __syncwarp();
    LdmatrixX4(SmemAddress(memory + (lane.id % 16) * kStride + lane.matrix_hi * 8), a);
  }
  // From sums by covered column, 8 of them and 8 more, to lines: of each half of the rows, two in a
  // word.
  template <typename T>
  __device__ void ToLines(const MmaLane& lane, const float (&columns)[2][4],
                          uint32_t (&lines)[2]) const {
    __syncwarp();
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int half = i % 2, later = i / 2;
      uint16_t* to = memory + (lane.row + half * 8) * kStride + later * 8 + 2 * lane.pair;
      *reinterpret_cast<uint32_t*>(to) =
          PackX2<T>(columns[later][2 * half], columns[later][2 * half + 1]);
    }
    __syncwarp();
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const uint16_t* from = memory + (lane.row + half * 8) * kStride + column + 2 * lane.pair;
      lines[half] = from[0] | static_cast<uint32_t>(from[1]) << 16;
    }
  }
};

// The terms of a patch's logits: of positions and of what takes no part.
template <typename S>
struct Terms {
  using T = typename S::T;
  uint32_t row_at, column_at;  // addresses that the lane gives to ldmatrix
  float row_start[4];
  uint32_t seen[2];  // covered columns, as masks of the column terms
  uint32_t one_hot[8];

  __device__ Terms(const Tables<S>& tables, const MmaLane& lane, const Way<S>& way) {
    if constexpr (S::kHeads == 2) {
      row_at = SmemAddress(tables.Row(lane.ldmatrix_row - lane.matrix_lo));
      column_at = SmemAddress(tables.Column(8 * lane.matrix_hi + lane.ldmatrix_row - lane.matrix_lo));
    } else {
      row_at = SmemAddress(tables.Row(lane.ldmatrix_row - lane.matrix_hi, lane.matrix_lo));
      column_at = SmemAddress(tables.Column(lane.ldmatrix_row, lane.matrix_lo));
    }
    SetColumns(lane, way, [](int) { return true; });
    SetRows(lane, way, [](int) { return true; });
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      const uint32_t hot = i % 2 ? PackX2<__half>(0.f, 1.f) : PackX2<__half>(1.f, 0.f);
      one_hot[i] = Hidden(lane.pair == i / 2 ? hot : 0u, lane, 12 + i);
    }
  }

  // With border "mask", pixels beyond the image are never attended to: for the rows of the tile.
  __device__ void SetRows(const Area& area, const MmaLane& lane, const Way<S>& way) {
    SetRows(lane, way, [&](int covered) { return area.RowInside(way.top + covered - kMargin); });
  }
  template <typename Inside>
  __device__ void SetRows(const MmaLane& lane, const Way<S>& way, Inside inside) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int row = 2 * lane.pair + i % 2, first = way.row[i / 2];
      const bool reached = row >= first && row < first + kKernel;
      row_start[i] = Hidden(reached && inside(row) ? 0.f : kMaskedBias, lane, i);
    }
  }
  // Likewise of the patch `left` columns after the tile's first.
  __device__ void SetColumns(const Area& area, const MmaLane& lane, const Way<S>& way, int left) {
    SetColumns(lane, way, [&](int covered) { return area.ColumnInside(left + covered - kMargin); });
  }
  template <typename Inside>
  __device__ void SetColumns(const MmaLane& lane, const Way<S>& way, Inside inside) {
    const auto mask = [&](int covered) {
      const bool reached = covered >= way.column && covered < way.column + kKernel;
      return reached && inside(covered) ? 0xffffu : 0u;
    };
#pragma unroll
    for (int upper = 0; upper < 2; ++upper) {
      const int covered = 8 * upper + 2 * lane.pair;
      seen[upper] = mask(covered) | mask(covered + 1) << 16;
    }
  }

  // Of the covered rows, with which the logits of every column start; of the covered columns, a
  // matrix [16, 16 columns].
  __device__ void Get(const Operands<S>& q, const MmaLane& lane, const Way<S>& way, const Shear& shear,
                      float (&row)[4], uint32_t (&columns)[4]) const {
    if constexpr (S::kHeads == 2) {
      OfPair(q, way, row, columns);
    } else {
      OfHead(q, lane, shear, row, columns);
    }
    const uint32_t never = PackX2<__half>(kMaskedBias, kMaskedBias);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      columns[i] = (columns[i] & seen[i / 2]) | (never & ~seen[i / 2]);
    }
  }

  // sum [16, 8 pixels of a covered column] = the terms.
  __device__ void Of(int covered, const float (&row)[4], const uint32_t (&columns)[4],
                     float (&sum)[4]) const {
    const int second = covered / 8 * 2;
    MmaM16N8K8<__half>(sum, row, columns[second], columns[second + 1], one_hot[covered % 8]);
  }

 private:
  __device__ void OfPair(const Operands<S>& q, const Way<S>& way, float (&row)[4],
                         uint32_t (&columns)[4]) const {
    uint32_t b[4];
    LdmatrixX2(row_at, b[0], b[1]);
    const auto kept = [](bool keep, uint32_t word) { return keep ? word : 0u; };
    const int y = way.row[0];
    MmaM16N8K16<T>(row, row_start, kept(y == 0, q.Of(0, 0)), kept(y == 0, q.Of(1, 0)),
                  kept(y == 1, q.Of(0, 0)), kept(y == 1, q.Of(1, 0)), b[0], b[1]);
    float sums[2][4];
#pragma unroll
    for (int two = 0; two < S::kPatchColumns / 2; ++two) {
      LdmatrixX4(column_at - 2 * two * 16, b);
      uint32_t a[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        a[i] = kept(way.column == 2 * two + i / 2, q.Of(i % 2, S::kColumnChunk));
      }
#pragma unroll
      for (int upper = 0; upper < 2; ++upper) {
        const auto& start = two == 0 ? kZeros : const_cast<const float (&)[4]>(sums[upper]);
        MmaM16N8K16<T>(sums[upper], start, a[0], a[1], a[2], a[3], b[2 * upper], b[2 * upper + 1]);
      }
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      columns[i] = PackX2<__half>(sums[i / 2][i % 2 * 2], sums[i / 2][i % 2 * 2 + 1]);
    }
  }

  // Each half of the rows is a row of pixels, which see the covered rows from their own on.
  __device__ void OfHead(const Operands<S>& q, const MmaLane& lane, const Shear& shear,
                         float (&row)[4], uint32_t (&columns)[4]) const {
    float second[4], lines[4];
#pragma unroll
    for (int i = 0; i < S::kTableChunks / 2; ++i) {
      const auto& a = q.a[i];
      uint32_t b[4];
      LdmatrixX4(row_at + 2 * i * S::kRowLines * 16, b);
      const auto after = [&](const float (&start)[4], float (&sum)[4]) -> const float (&)[4] {
        return i == 0 ? start : const_cast<const float (&)[4]>(sum);
      };
      MmaM16N8K16<T>(row, after(row_start, row), a[0], a[1], a[2], a[3], b[0], b[1]);
      MmaM16N8K16<T>(second, after(row_start, second), a[0], a[1], a[2], a[3], b[2], b[3]);
      const auto& c = q.a[S::kColumnChunk / 2 + i];
      LdmatrixX2(column_at + 2 * i * S::kColumnLines * 16, b[0], b[1]);
      MmaM16N8K16<T>(lines, after(kZeros, lines), c[0], c[1], c[2], c[3], b[0], b[1]);
    }
    row[2] = second[2];
    row[3] = second[3];
    shear.FromLines(lane, lines, columns);
  }
};

// Shared memory of the kernels by queries: regions of keys and values, tables, of each warp what
// goes from lane to lane, and what the regions' copies are waited for with.
template <typename S>
struct ByQueries {
  static constexpr int kRoom =
      S::kHeads == 1 && Shear::kBytes > Stores<S>::kBytes ? Shear::kBytes : Stores<S>::kBytes;
  static constexpr int kTables = 2 * S::kRegion, kRooms = kTables + Tables<S>::kBytes;
  static constexpr int kArrivals = kRooms + S::kWarps * kRoom;
  static constexpr int kBytes = kArrivals + TmaBarrier::kBytes;
  static_assert(kArrivals % TmaBarrier::kBytes == 0);
};

}  // namespace
}  // namespace sasa

#endif  // SASA_TF_NATIVE_CUDA_PATCH_TERMS_CUH_
