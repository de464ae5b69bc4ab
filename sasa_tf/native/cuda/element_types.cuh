// Element types of the CUDA kernels: conversions, and the constants of the softmax in base 2.
#ifndef SASA_TF_NATIVE_CUDA_ELEMENT_TYPES_CUH_
#define SASA_TF_NATIVE_CUDA_ELEMENT_TYPES_CUH_

#include <cuda_runtime.h>

#include <cstdint>

#include "cuda/half_types.h"
#include "cuda/ptx.cuh"
#include "cuda/warp_reduce.cuh"

namespace sasa {

// The kernels scale logits by log2(e), so that the softmax can use exp2.
constexpr float kLog2E = 1.4426950408889634f;
constexpr float kLn2 = 0.6931471805599453f;

constexpr float kMaskedLogit = -1e30f;  // logit of a masked key
constexpr float kInvalidLse = 1e30f;    // LSE of a query outside the image: its probabilities are 0

// Whether a row sum of exponentials without the row maximum is accurate: far from overflow and from
// underflow.
__device__ inline bool SumInRange(float row_sum) {
  return row_sum > 0x1p-100f && row_sum < 0x1p100f;
}

// Converts a packed bf16x2 register to two floats; ptx.cuh has the same for fp16x2.
__device__ inline float2 UnpackX2(uint32_t packed, Bfloat16) {
  return make_float2(__uint_as_float(packed << 16), __uint_as_float(packed & 0xffff0000u));
}

// The error of the conversion to a 16-bit type.
template <typename T>
__device__ inline float ConversionError(float x) {
  return x - UnpackX2(ConvertTo<T>(x).bits, T()).x;
}

// Clears the bits of a float that TF32 does not have.
__device__ inline float TruncateToTf32(float x) {
  return __uint_as_float(__float_as_uint(x) & 0xffffe000u);
}

__host__ __device__ constexpr int CeilDiv(int a, int b) { return (a + b - 1) / b; }

}  // namespace sasa

#endif  // SASA_TF_NATIVE_CUDA_ELEMENT_TYPES_CUH_
