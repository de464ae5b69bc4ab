// The rows of MMA tiles of queries in the backward pass: Q, dO, O, LSE and delta.
#ifndef SASA_TF_NATIVE_CUDA_MMA_QUERY_ROWS_CUH_
#define SASA_TF_NATIVE_CUDA_MMA_QUERY_ROWS_CUH_

#include <cstdint>

#include "cuda/element_types.cuh"
#include "cuda/mma_fragment.cuh"
#include "cuda/mma_traits.cuh"
#include "cuda/mma_warp_tile.cuh"
#include "cuda/opaque_register.cuh"
#include "cuda/ptx.cuh"
#include "cuda/tile_scheduler.cuh"

namespace sasa {
namespace {

// Where the lane's rows of an MMA tile are in dO, which has one part and may be pooled.
template <typename Traits>
struct DOutputLayout {
  uint32_t first_offset;  // in the warp's first MMA tile
  uint32_t step;          // to the next one
  int half_stride;        // in heads

  __device__ DOutputLayout(const TileGrid& g, const CtaTile& tile, const MmaLane& lane,
                           const WarpTileIterator<Traits>& mma_tiles) {
    first_offset = tile.PooledOffset(g, mma_tiles.top + mma_tiles.row[0],
                                     mma_tiles.begin + mma_tiles.column) *
                       Traits::kHeadDim +
                   LaneChannel<Traits>(lane);
    step = mma_tiles.Step(1) >> g.pool_shift;
    half_stride = g.pool_shift ? mma_tiles.PooledHalfStride() : mma_tiles.HalfStride(1);
  }
};

// Loads the LSE of the lane's rows; `half_stride` is in heads.
__device__ inline void LoadLse(const float* from, int half_stride, const RowPredicate& valid,
                               float (&lse)[2]) {
  lse[0] = lse[1] = kInvalidLse;
  if (valid.first) lse[0] = __ldg(from);
  if (valid.second) lse[1] = __ldg(from + half_stride);
}

// Subtracts the part of delta of the lane's channels, by half: O * dO.
template <typename Traits>
__device__ inline void SubtractDelta(const RowFragment<Traits>& output,
                                     const RowFragment<Traits>& d_output, float (&sums)[2]) {
  using Element = typename Traits::Element;
#pragma unroll
  for (int i = 0; i < 2 * Traits::kHeadChunks; ++i) {
    const int half = i / Traits::kHeadChunks, c = i % Traits::kHeadChunks;
    const float2 o = UnpackX2(output[half][c], Element());
    const float2 d_o = UnpackX2(d_output[half][c], Element());
    sums[half] = fmaf(-o.x, d_o.x, fmaf(-o.y, d_o.y, sums[half]));
  }
}

// Sums over the lanes of a quad, as a product with ones. What TF32 truncates is summed too.
struct QuadSum {
  float ones[2];
  __device__ explicit QuadSum(const MmaLane& lane)
      : ones{OpaqueRegister(1.f, lane, kTagTf32Ones), OpaqueRegister(1.f, lane, kTagTf32Ones + 1)} {
  }
  // Of a value by half. The sums are an accumulator [16, 8] with equal columns.
  __device__ void Sum(const float (&values)[2], float (&sums)[4]) const {
    const float high[2] = {TruncateToTf32(values[0]), TruncateToTf32(values[1])};
    MmaM16N8K8Tf32(sums, kZeros, high[0], high[1], values[0] - high[0], values[1] - high[1],
                   ones[0], ones[1]);
  }
};

}  // namespace
}  // namespace sasa

#endif  // SASA_TF_NATIVE_CUDA_MMA_QUERY_ROWS_CUH_
