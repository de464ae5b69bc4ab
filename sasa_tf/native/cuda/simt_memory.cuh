// Global and shared memory of the SIMT kernels: loads and stores of an element type that is known
// at run time, and the relative tables.
#ifndef SASA_TF_NATIVE_CUDA_SIMT_MEMORY_CUH_
#define SASA_TF_NATIVE_CUDA_SIMT_MEMORY_CUH_

#include <cuda_runtime.h>

#include <cstdint>

#include "cuda/element_types.cuh"
#include "cuda/ptx.cuh"
#include "cuda/simt_traits.cuh"
#include "local_attention.h"

namespace sasa {
namespace {

// Loads elements of a type that all threads agree on and converts them to float32.
struct TypedLoader {
  const char* data;
  DType type;

  // Loads kCount elements at `offset`; zeros if not `valid`, and from element `count` on, which is
  // a multiple of 4.
  template <int kCount>
  __device__ void Load(int64_t offset, bool valid, int count, float (&to)[kCount]) const {
#pragma unroll
    for (int i = 0; i < kCount; i += 4) {
      const bool load = valid && i < count;
      if (type == DType::kFloat32) {
        float4 x = make_float4(0.f, 0.f, 0.f, 0.f);
        if (load) x = __ldg(reinterpret_cast<const float4*>(data + (offset + i) * 4));
        to[i] = x.x;
        to[i + 1] = x.y;
        to[i + 2] = x.z;
        to[i + 3] = x.w;
      } else {
        uint2 packed = make_uint2(0, 0);
        if (load) packed = __ldg(reinterpret_cast<const uint2*>(data + (offset + i) * 2));
        const bool bf16 = type == DType::kBfloat16;
        const float2 low = bf16 ? UnpackX2(packed.x, Bfloat16()) : UnpackX2(packed.x, Float16());
        const float2 high = bf16 ? UnpackX2(packed.y, Bfloat16()) : UnpackX2(packed.y, Float16());
        to[i] = low.x;
        to[i + 1] = low.y;
        to[i + 2] = high.x;
        to[i + 3] = high.y;
      }
    }
  }
};

// Converts float32 to a type that all threads agree on and stores it.
struct TypedStorer {
  char* data;
  DType type;

  // Stores the first `count` elements, a multiple of 4, times `factor`.
  template <int kCount>
  __device__ void Store(const float (&from)[kCount], float factor, int count,
                        int64_t offset) const {
#pragma unroll
    for (int i = 0; i < kCount; i += 4) {
      if (i >= count) continue;
      const float x[4] = {from[i] * factor, from[i + 1] * factor, from[i + 2] * factor,
                          from[i + 3] * factor};
      if (type == DType::kFloat32) {
        *reinterpret_cast<float4*>(data + (offset + i) * 4) = make_float4(x[0], x[1], x[2], x[3]);
      } else {
        const bool bf16 = type == DType::kBfloat16;
        *reinterpret_cast<uint2*>(data + (offset + i) * 2) =
            bf16 ? make_uint2(PackX2<Bfloat16>(x[0], x[1]), PackX2<Bfloat16>(x[2], x[3]))
                 : make_uint2(PackX2<Float16>(x[0], x[1]), PackX2<Float16>(x[2], x[3]));
      }
    }
  }
};

inline TypedLoader LoadFrom(const LocalAttentionProblem& p, const void* data) {
  return {static_cast<const char*>(data), p.type};
}
inline TypedStorer StoreTo(const LocalAttentionProblem& p, void* data) {
  return {static_cast<char*>(data), p.type};
}

// Copies the relative tables to shared memory [entry][PaddedHeadDim], the row table before the
// column table, with zeros for the channels of the other table.
template <typename Traits>
__device__ void LoadRelativeTables(const SimtGrid& g, const float* rows, const float* columns,
                                   float* tables) {
  const int count = (g.window_rows + Traits::kWindowColumns) * Traits::PaddedHeadDim(g);
  for (int i = threadIdx.x; i < count; i += blockDim.x) {
    const int entry = i / Traits::PaddedHeadDim(g), channel = i % Traits::PaddedHeadDim(g);
    float x = 0.f;
    if (g.has_relative && channel < g.head_dim) {
      if (entry < g.window_rows && channel < g.half) x = rows[entry * g.half + channel];
      if (entry >= g.window_rows && channel >= g.half) {
        x = columns[(entry - g.window_rows) * g.half + channel - g.half];
      }
    }
    tables[i] = x;
  }
  __syncthreads();
}

template <typename Traits>
constexpr int RelativeTableBytes(const SimtGrid& g) {
  return static_cast<int>(sizeof(float)) * (g.window_rows + Traits::kWindowColumns) *
         Traits::PaddedHeadDim(g);
}

}  // namespace
}  // namespace sasa

#endif  // SASA_TF_NATIVE_CUDA_SIMT_MEMORY_CUH_
