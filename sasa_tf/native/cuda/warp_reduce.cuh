// Reductions over the lanes of a warp.
#ifndef SASA_TF_NATIVE_CUDA_WARP_REDUCE_CUH_
#define SASA_TF_NATIVE_CUDA_WARP_REDUCE_CUH_

#include <cuda_runtime.h>

namespace sasa {

constexpr int kWarpSize = 32;
constexpr unsigned kFullMask = 0xffffffffu;

// Sums over the lanes whose ids are equal modulo kStride; kStride 1 sums over the whole warp.
template <int kStride>
__device__ inline float WarpReduceSum(float x) {
#pragma unroll
  for (int distance = kWarpSize / 2; distance >= kStride; distance /= 2) {
    x += __shfl_xor_sync(kFullMask, x, distance);
  }
  return x;
}

// Maximum over the quad of lanes that hold a row of an accumulator fragment.
__device__ inline float QuadMax(float x) {
  x = fmaxf(x, __shfl_xor_sync(kFullMask, x, 1));
  return fmaxf(x, __shfl_xor_sync(kFullMask, x, 2));
}

// Sum over the same lanes.
__device__ inline float QuadReduceSum(float x) {
  x += __shfl_xor_sync(kFullMask, x, 1);
  return x + __shfl_xor_sync(kFullMask, x, 2);
}

}  // namespace sasa

#endif  // SASA_TF_NATIVE_CUDA_WARP_REDUCE_CUH_
