// The relative tables in dQ: dS summed by table entry, the tables' part of dQ, and the partial sums
// of the tables' gradients.
#ifndef SASA_TF_NATIVE_CUDA_MMA_TABLE_GRADIENTS_CUH_
#define SASA_TF_NATIVE_CUDA_MMA_TABLE_GRADIENTS_CUH_

#include <cstdint>

#include "cuda/mma_fragment.cuh"
#include "cuda/mma_position_bias.cuh"
#include "cuda/mma_traits.cuh"
#include "cuda/mma_warp_tile.cuh"
#include "cuda/ptx.cuh"

namespace sasa {
namespace {

// Converts dS summed over the columns of each halo row (`rows`) and over the rows of each halo
// column (`columns`) to sums by table entry: for each half's 8 queries, packed, [8, 8 entries of
// the row table] and [8, 8 of the column table]. Without branches, in which lanes would diverge.
template <typename Traits>
__device__ inline void SumsToTableEntries(const MmaLane& lane,
                                          const WarpTileIterator<Traits>& mma_tiles,
                                          const SkewTranspose& skew, const float (&rows)[4],
                                          const float (&columns)[2][4], uint32_t (&entries)[2][2]) {
  using Element = typename Traits::Element;
  // Selectors of __byte_perm: two 16-bit elements of two registers, from the first element on or
  // from the second.
  constexpr uint32_t kFromFirst = 0x3210, kFromSecond = 0x5432;
  const int quad = lane.id - lane.pair;
  // The register `lanes` further on in the quad; past its end, from the second register.
  const auto shift_down = [&](uint32_t x, uint32_t past_end, int lanes) {
    return __shfl_sync(kFullMask, lane.pair < lanes ? past_end : x, quad + (lane.pair + lanes) % 4);
  };
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const uint32_t packed = PackX2<Element>(rows[2 * half], rows[2 * half + 1]);
    entries[half][0] = __byte_perm(packed, shift_down(packed, 0u, 1),
                                   mma_tiles.row[half] ? kFromSecond : kFromFirst);
  }
  if constexpr (Traits::kTileHeads == 1) {
    uint32_t column_entries[2];
    skew.ToTableEntries<Element>(lane, columns, column_entries);
    entries[0][1] = column_entries[0];
    entries[1][1] = column_entries[1];
  } else {
    const int lanes = mma_tiles.column / 2;
    const uint32_t selector = mma_tiles.column % 2 ? kFromSecond : kFromFirst;
#pragma unroll
    for (int head = 0; head < 2; ++head) {
      const uint32_t left = PackX2<Element>(columns[0][2 * head], columns[0][2 * head + 1]);
      const uint32_t right = PackX2<Element>(columns[1][2 * head], columns[1][2 * head + 1]);
      entries[head][1] =
          __byte_perm(shift_down(left, right, lanes), shift_down(left, right, lanes + 1), selector);
    }
  }
}

// dQ += dS r, from the sums by table entry. `table`: the address that the lane passes to ldmatrix,
// of the row table or, in the second 8 lanes, of the column table.
template <typename Traits>
__device__ inline void MmaTables(uint32_t table, const uint32_t (&entries)[2][2],
                                 Accumulator<Traits>& dq) {
  using Element = typename Traits::Element;
#pragma unroll
  for (int i = 0; i < Traits::kTableChunks; ++i) {
    const int column_chunk = Traits::kColumnTableChunk + i;
    uint32_t b[2];
    LdmatrixX2Trans(table + i * Traits::kRowEntries * 16, b[0], b[1]);
    if constexpr (Traits::kTileHeads == 1) {
      MmaM16N8K8<Element>(dq[0][i], entries[0][0], entries[1][0], b[0]);
      MmaM16N8K8<Element>(dq[0][column_chunk], entries[0][1], entries[1][1], b[1]);
    } else {
      // Each head has half of the rows.
      float product[Traits::kHeadChunks][4];
      if constexpr (Traits::kHeadChunks == 1) {
        MmaM16N8K16<Element>(product[0], kZeros, entries[0][0], entries[1][0], entries[0][1],
                             entries[1][1], b[0], b[1]);
      } else {
        MmaM16N8K8<Element>(product[0], kZeros, entries[0][0], entries[1][0], b[0]);
        MmaM16N8K8<Element>(product[1], kZeros, entries[0][1], entries[1][1], b[1]);
      }
#pragma unroll
      for (int c = 0; c < Traits::kHeadChunks; ++c) {
#pragma unroll
        for (int i = 0; i < 4; ++i) dq[i / 2][c][i] += product[c][i];
      }
    }
  }
}

// Adds the warps' sums of the tables' gradients, accumulator fragments [8 row entries and 8 column
// entries, D], one warp after another, and writes the CTA's partial sum. `smem`: 16 D floats. Ends
// the kernel.
template <int kHeadDim>
__device__ inline void StoreTablePartials(const MmaLane& lane, const float (&sums)[kHeadDim / 8][4],
                                          float* smem, float* partials) {
  constexpr int kHalf = kHeadDim / 2, kElements = 2 * kKernel * kHalf;
  const int threads = blockDim.x;
  __syncthreads();
  for (int warp = 0; warp < threads / kWarpSize; ++warp) {
    if (threadIdx.x / kWarpSize == warp) {
#pragma unroll
      for (int c = 0; c < kHeadDim / 8; ++c) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          float* to = smem + (lane.row + 8 * (i / 2)) * kHeadDim + 8 * c + 2 * lane.pair + i % 2;
          *to = (warp ? *to : 0.f) + sums[c][i];
        }
      }
    }
    __syncthreads();
  }
  partials += static_cast<int64_t>(blockIdx.x) * kElements;
  for (int i = threadIdx.x; i < kElements; i += threads) {
    const int entry = i / kHalf, channel = i % kHalf;
    partials[i] = entry < kKernel ? smem[entry * kHeadDim + channel]
                                  : smem[(8 + entry - kKernel) * kHeadDim + kHalf + channel];
  }
}

}  // namespace
}  // namespace sasa

#endif  // SASA_TF_NATIVE_CUDA_MMA_TABLE_GRADIENTS_CUH_
