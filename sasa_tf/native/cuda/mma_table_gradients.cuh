// The relative tables in dQ: dS summed by table entry, the tables' part of dQ, and the partial sums
// of the tables' gradients.
#ifndef SASA_TF_NATIVE_CUDA_MMA_TABLE_GRADIENTS_CUH_
#define SASA_TF_NATIVE_CUDA_MMA_TABLE_GRADIENTS_CUH_

#include <cstdint>

#include "cuda/mma_fragment.cuh"
#include "cuda/mma_position_bias.cuh"
#include "cuda/mma_traits.cuh"
#include "cuda/mma_warp_tile.cuh"
#include "cuda/opaque_register.cuh"
#include "cuda/ptx.cuh"

namespace sasa {
namespace {

// Sums dS of an MMA tile by halo row and by halo column, as products with matrices of zeros and
// ones: B operands [8 pixels of a block, 8 rows or columns].
template <typename Traits>
struct DsSums {
  using Element = typename Traits::Element;
  // Rows of blocks in a group of 8 halo rows, and columns of blocks in one of 8 halo columns.
  static constexpr int kRowOnes = Traits::kRowBlocks > 1 ? 8 / Traits::kBlockRows : 1;
  static constexpr int kColumnOnes = 8 / Traits::kBlockColumns;
  uint32_t row_ones[kRowOnes][2];  // for both blocks of a step
  uint32_t column_ones[kColumnOnes];

  __device__ explicit DsSums(const MmaLane& lane) {
    const uint32_t one = PackX2<Element>(1.f, 1.f);
#pragma unroll
    for (int i = 0; i < 2 * kRowOnes; ++i) {
      const auto row_of = [&](int pixel) {
        return i / 2 * Traits::kBlockRows + Traits::BlockRow(pixel);
      };
      const uint32_t low = row_of(2 * lane.pair) == lane.row ? one & 0xffffu : 0u;
      const uint32_t high = row_of(2 * lane.pair + 1) == lane.row ? one & 0xffff0000u : 0u;
      row_ones[i / 2][i % 2] = OpaqueRegister(low | high, lane, kTagRowSumOnes + i);
    }
#pragma unroll
    for (int i = 0; i < kColumnOnes; ++i) {
      const int column = i * Traits::kBlockColumns + Traits::BlockColumn(2 * lane.pair);
      column_ones[i] = OpaqueRegister(lane.row == column ? one : 0u, lane, kTagColumnSumOnes + i);
    }
  }
  // Adds those of a step.
  __device__ void Add(int step, const uint32_t (&ds)[4], float (&row_sums)[Traits::kRowGroups][4],
                      float (&column_sums)[Traits::kColumnGroups][4]) const {
    const auto& to_rows = row_ones[Traits::RowBlock(step) % kRowOnes];
    const int column_block = Traits::ColumnBlock(step), to_column = column_block % kColumnOnes;
    MmaStep<Traits>(step, ds, to_rows[0], to_rows[1],
                    row_sums[Traits::RowBlock(step) / kRowOnes]);
    MmaStep<Traits>(step, ds, column_ones[to_column], column_ones[to_column + 1],
                    column_sums[column_block / kColumnOnes]);
  }
};

// dS of an MMA tile summed by table entry, of the row table and of the column table, and by groups
// of 8 entries: for each half's 8 queries, packed.
template <typename Traits>
struct TableEntries {
  using Element = typename Traits::Element;
  static constexpr int kGroups = Traits::kEntryGroups;
  uint32_t rows[2][kGroups], columns[2][kGroups];

  // From dS summed over the columns of each halo row and over the rows of each halo column. Without
  // branches, in which lanes would diverge.
  __device__ TableEntries(const MmaLane& lane, const WarpTileIterator<Traits>& mma_tiles,
                          const SkewTranspose<Traits>& skew,
                          const float (&row_sums)[Traits::kRowGroups][4],
                          const float (&column_sums)[Traits::kColumnGroups][4]) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      MoveDown<Traits::kMmaTileRows>(lane, half, mma_tiles.row[half], row_sums, rows[half]);
    }
    if constexpr (Traits::kTileHeads == 1) {
      skew.template ToTableEntries<Element>(lane, column_sums, columns);
    } else {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        MoveDown<Traits::kMmaTileColumns>(lane, half, mma_tiles.column, column_sums, columns[half]);
      }
    }
  }

 private:
  // Moves the sums of a half's queries down by `by`, which is below kBound, and packs them.
  template <int kBound, int kSumGroups>
  __device__ static void MoveDown(const MmaLane& lane, int half, int by,
                                  const float (&sums)[kSumGroups][4], uint32_t (&moved)[kGroups]) {
    // Selectors of __byte_perm: two 16-bit elements of two registers, from the first element on or
    // from the second.
    const uint32_t selector = by % 2 ? 0x5432 : 0x3210;
    uint32_t packed[kSumGroups + 1];
    packed[kSumGroups] = 0u;
#pragma unroll
    for (int group = 0; group < kSumGroups; ++group) {
      packed[group] = PackX2<Element>(sums[group][2 * half], sums[group][2 * half + 1]);
    }
    // The register `lanes` further on in the quad; past its end, of the next group.
    const auto further = [&](int group, int lanes) {
      const uint32_t own = lane.pair < lanes ? packed[group + 1] : packed[group];
      return __shfl_sync(kFullMask, own, lane.id - lane.pair + (lane.pair + lanes) % 4);
    };
#pragma unroll
    for (int group = 0; group < kGroups; ++group) {
      const uint32_t first = kBound <= 2 ? packed[group] : further(group, by / 2);
      moved[group] = __byte_perm(first, further(group, by / 2 + 1), selector);
    }
  }
};

// dQ += dS r, from the sums by table entry. `table`: the address that the lane passes to ldmatrix,
// of the row table or the column table (matrix_lo), and of a group of entries (matrix_hi).
template <typename Traits>
__device__ inline void MmaTables(uint32_t table, const TableEntries<Traits>& entries,
                                 Accumulator<Traits>& dq) {
  using Element = typename Traits::Element;
  constexpr bool kTwoGroups = Traits::kEntryGroups == 2;
  // sum = c + the part of one of the tables; `b`: its entries.
  const auto add = [&](const uint32_t (&of_table)[2][Traits::kEntryGroups], uint32_t b0, uint32_t b1,
                       const float (&c)[4], float (&sum)[4]) {
    if constexpr (kTwoGroups) {
      MmaM16N8K16<Element>(sum, c, of_table[0][0], of_table[1][0], of_table[0][1], of_table[1][1],
                           b0, b1);
    } else {
      MmaM16N8K8<Element>(sum, c, of_table[0][0], of_table[1][0], b0);
    }
  };
#pragma unroll
  for (int i = 0; i < Traits::kTableChunks; ++i) {
    const int column_chunk = Traits::kColumnTableChunk + i;
    uint32_t b[4] = {};
    const uint32_t chunk = table + i * Traits::kRowEntries * 16;
    if constexpr (kTwoGroups) {
      LdmatrixX4Trans(chunk, b);
    } else {
      LdmatrixX2Trans(chunk, b[0], b[1]);
    }
    if constexpr (Traits::kTileHeads == 1) {
      add(entries.rows, b[0], b[2], dq[0][i], dq[0][i]);
      add(entries.columns, b[1], b[3], dq[0][column_chunk], dq[0][column_chunk]);
    } else {
      // Each head has half of the rows.
      float product[Traits::kHeadChunks][4];
      if constexpr (Traits::kHeadChunks == 1 && !kTwoGroups) {
        MmaM16N8K16<Element>(product[0], kZeros, entries.rows[0][0], entries.rows[1][0],
                             entries.columns[0][0], entries.columns[1][0], b[0], b[1]);
      } else {
        add(entries.rows, b[0], b[2], kZeros, product[0]);
        if constexpr (Traits::kHeadChunks == 1) {
          add(entries.columns, b[1], b[3], product[0], product[0]);
        } else {
          add(entries.columns, b[1], b[3], kZeros, product[1]);
        }
      }
#pragma unroll
      for (int c = 0; c < Traits::kHeadChunks; ++c) {
#pragma unroll
        for (int i = 0; i < 4; ++i) dq[i / 2][c][i] += product[c][i];
      }
    }
  }
}

// The gradients of the tables, accumulated over MMA tiles: fragments [8 entries of the row table
// and 8 of the column table, D].
template <typename Traits>
using TableGradients = float[Traits::kEntryGroups][Traits::kHeadChunks][4];

// d_tables += dS^T Q, from the sums by table entry.
template <typename Traits>
__device__ inline void MmaTableGradients(const TableEntries<Traits>& entries,
                                         const AFragment<Traits>& q,
                                         TableGradients<Traits>& d_tables) {
  uint32_t a[Traits::kEntryGroups][4];
#pragma unroll
  for (int group = 0; group < Traits::kEntryGroups; ++group) {
    a[group][0] = Movmatrix(entries.rows[0][group]);
    a[group][1] = Movmatrix(entries.columns[0][group]);
    a[group][2] = Movmatrix(entries.rows[1][group]);
    a[group][3] = Movmatrix(entries.columns[1][group]);
  }
#pragma unroll
  for (int c = 0; c < Traits::kHeadChunks; ++c) {
    const uint32_t b[2] = {Movmatrix(q.Get(0, c)), Movmatrix(q.Get(1, c))};
#pragma unroll
    for (int group = 0; group < Traits::kEntryGroups; ++group) {
      MmaM16N8K16<typename Traits::Element>(d_tables[group][c], a[group][0], a[group][1],
                                            a[group][2], a[group][3], b[0], b[1]);
    }
  }
}

// Adds the warps' gradients of the tables, one warp after another, and writes the CTA's partial
// sum. `smem`: 16 padded D floats for each group of entries. Ends the kernel.
template <typename Traits>
__device__ inline void StoreTablePartials(const MmaLane& lane, const TableGradients<Traits>& sums,
                                          float* smem, float* partials) {
  constexpr int kStride = Traits::kPaddedHeadDim, kHalf = Traits::kHeadDim / 2;
  constexpr int kEntries = 8 * Traits::kEntryGroups, kElements = 2 * Traits::kKernel * kHalf;
  const int threads = blockDim.x;
  __syncthreads();
  for (int warp = 0; warp < threads / kWarpSize; ++warp) {
    if (threadIdx.x / kWarpSize == warp) {
#pragma unroll
      for (int group = 0; group < Traits::kEntryGroups; ++group) {
#pragma unroll
        for (int c = 0; c < Traits::kHeadChunks; ++c) {
#pragma unroll
          for (int i = 0; i < 4; ++i) {
            const int entry = i / 2 * kEntries + 8 * group + lane.row;
            float* to = smem + entry * kStride + 8 * c + 2 * lane.pair + i % 2;
            *to = (warp ? *to : 0.f) + sums[group][c][i];
          }
        }
      }
    }
    __syncthreads();
  }
  partials += static_cast<int64_t>(blockIdx.x) * kElements;
  for (int i = threadIdx.x; i < kElements; i += threads) {
    const int entry = i / kHalf, channel = i % kHalf;
    partials[i] = entry < Traits::kKernel
                      ? smem[entry * kStride + channel]
                      : smem[(kEntries + entry - Traits::kKernel) * kStride + kHalf + channel];
  }
}

}  // namespace
}  // namespace sasa

#endif  // SASA_TF_NATIVE_CUDA_MMA_TABLE_GRADIENTS_CUH_
