// Emulation of the CUDA header of this name.
#ifndef SASA_TF_TESTS_NATIVE_EMULATED_GPU_CUDA_FP16_H_
#define SASA_TF_TESTS_NATIVE_EMULATED_GPU_CUDA_FP16_H_

#include "half_types.h"

using __half = emulation::Half<emulation::Float16>;
using __half2 = emulation::Half2<emulation::Float16>;
using half = __half;
using half2 = __half2;

SASA_EMULATION_HALF_FUNCTIONS(__half, __half2)

inline __half __float2half(float x) { return x; }
inline __half __float2half_rn(float x) { return x; }
inline float __half2float(__half x) { return x; }
inline unsigned short __half_as_ushort(__half x) { return x.bits; }
inline __half __ushort_as_half(unsigned short bits) { return __half::FromBits(bits); }
inline __half2 __half2half2(__half x) { return {x, x}; }
inline __half2 __halves2half2(__half x, __half y) { return {x, y}; }
inline __half2 __float2half2_rn(float x) { return {x, x}; }
inline __half2 __floats2half2_rn(float x, float y) { return {x, y}; }
inline __half2 __float22half2_rn(float2 two) { return {two.x, two.y}; }
inline float2 __half22float2(__half2 two) { return make_float2(two.x, two.y); }
inline __half __low2half(__half2 two) { return two.x; }
inline __half __high2half(__half2 two) { return two.y; }
inline float __low2float(__half2 two) { return two.x; }
inline float __high2float(__half2 two) { return two.y; }

#endif  // SASA_TF_TESTS_NATIVE_EMULATED_GPU_CUDA_FP16_H_
