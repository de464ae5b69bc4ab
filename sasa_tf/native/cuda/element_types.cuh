// Numbers of the CUDA kernels: loads, stores, conversions and sums over lanes.
#ifndef SASA_TF_NATIVE_CUDA_NUMBERS_CUH_
#define SASA_TF_NATIVE_CUDA_NUMBERS_CUH_

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstdint>

#include "cuda/kernel_attribute_cache.h"
#include "cuda/ptx.cuh"

namespace sasa {

constexpr int kWarp = 32;
constexpr unsigned kAllLanes = 0xffffffffu;

// Logits are in units of log2 inside of the kernels.
constexpr float kLog2E = 1.4426950408889634f;
constexpr float kLn2 = 0.6931471805599453f;

constexpr float kMasked = -1e30f;  // logit of what takes no part
constexpr float kAbsent = 1e30f;   // log-sum-exp of a query that is not there: weights of zero

__device__ inline float2 Widen(uint32_t two, __nv_bfloat16) {
  return make_float2(__uint_as_float(two << 16), __uint_as_float(two & 0xffff0000u));
}
__device__ inline float2 Widen(uint32_t two, __half) {
  return __half22float2(*reinterpret_cast<__half2*>(&two));
}

// What tf32 keeps of a float.
__device__ inline float Coarse(float x) {
  return __uint_as_float(__float_as_uint(x) & 0xffffe000u);
}

// Sums over the lanes of a warp whose numbers are equal modulo kLanes.
template <int kLanes>
__device__ inline float WarpSum(float x) {
#pragma unroll
  for (int distance = kWarp / 2; distance >= kLanes; distance /= 2) {
    x += __shfl_xor_sync(kAllLanes, x, distance);
  }
  return x;
}

// Thread blocks that take turns on the work: as many as run at a time.
template <typename Kernel>
int Workers(Kernel kernel, int work, int threads, int bytes, int limit) {
  cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
  const int most = AskOnce(kernel, threads, bytes, [&](int device) {
    int processors = 1, blocks = 1;
    cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device);
    cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, kernel, threads, bytes);
    return processors * (blocks > 0 ? blocks : 1);
  });
  const int workers = work < most ? work : most;
  return workers < limit ? workers : limit;
}

__host__ __device__ constexpr int CeilDiv(int a, int b) { return (a + b - 1) / b; }

}  // namespace sasa

#endif  // SASA_TF_NATIVE_CUDA_NUMBERS_CUH_
