// Emulation of the CUDA header of this name.
#ifndef SASA_TF_TESTS_NATIVE_EMULATED_GPU_CUDA_BF16_H_
#define SASA_TF_TESTS_NATIVE_EMULATED_GPU_CUDA_BF16_H_

#include "half_types.h"

using __nv_bfloat16 = emulation::Half<emulation::Bfloat16>;
using __nv_bfloat162 = emulation::Half2<emulation::Bfloat16>;

SASA_EMULATION_HALF_FUNCTIONS(__nv_bfloat16, __nv_bfloat162)

inline __nv_bfloat16 __float2bfloat16(float x) { return x; }
inline __nv_bfloat16 __float2bfloat16_rn(float x) { return x; }
inline float __bfloat162float(__nv_bfloat16 x) { return x; }
inline unsigned short __bfloat16_as_ushort(__nv_bfloat16 x) { return x.bits; }
inline __nv_bfloat16 __ushort_as_bfloat16(unsigned short bits) {
  return __nv_bfloat16::FromBits(bits);
}
inline __nv_bfloat162 __bfloat162bfloat162(__nv_bfloat16 x) { return {x, x}; }
inline __nv_bfloat162 __halves2bfloat162(__nv_bfloat16 x, __nv_bfloat16 y) { return {x, y}; }
inline __nv_bfloat162 __float2bfloat162_rn(float x) { return {x, x}; }
inline __nv_bfloat162 __floats2bfloat162_rn(float x, float y) { return {x, y}; }
inline __nv_bfloat162 __float22bfloat162_rn(float2 two) { return {two.x, two.y}; }
inline float2 __bfloat1622float2(__nv_bfloat162 two) { return make_float2(two.x, two.y); }
inline __nv_bfloat16 __low2bfloat16(__nv_bfloat162 two) { return two.x; }
inline __nv_bfloat16 __high2bfloat16(__nv_bfloat162 two) { return two.y; }
inline float __low2float(__nv_bfloat162 two) { return two.x; }
inline float __high2float(__nv_bfloat162 two) { return two.y; }

#endif  // SASA_TF_TESTS_NATIVE_EMULATED_GPU_CUDA_BF16_H_
