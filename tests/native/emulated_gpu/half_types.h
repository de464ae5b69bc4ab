// The 16-bit floating point formats: conversion of their bits, and fused multiply-adds.
#ifndef SASA_TF_TESTS_NATIVE_EMULATED_GPU_HALF_TYPES_H_
#define SASA_TF_TESTS_NATIVE_EMULATED_GPU_HALF_TYPES_H_

#include <cmath>
#include <cstdint>

#include "cuda_runtime.h"

namespace emulation {

// float16 has 5 bits of exponent and 10 of fraction. All rounding is to nearest, ties to even.
struct Float16 {
  static uint16_t FromFloat(float x) {
    const uint32_t bits = BitCast<uint32_t>(x), sign = bits >> 16 & 0x8000;
    uint32_t magnitude = bits & 0x7fffffff;
    if (magnitude > 0x7f800000) return 0x7fff;
    if (magnitude >= 0x477ff000) return sign | 0x7c00;  // 65520
    if (magnitude < 0x38800000) {
      // Below 2**-14: after adding 0.5, the last bit of float32 is the last bit of a denormal.
      const float shifted = BitCast<float>(magnitude) + 0.5f;
      return sign | (BitCast<uint32_t>(shifted) - 0x3f000000);
    }
    magnitude += 0xfff + (magnitude >> 13 & 1);
    return sign | (magnitude - 0x38000000) >> 13;
  }
  static float ToFloat(uint16_t bits) {
    const uint32_t magnitude = (bits & 0x7fffu) << 13, sign = (bits & 0x8000u) << 16;
    if (magnitude >= 0x0f800000) return BitCast<float>(sign | magnitude | 0x7f800000);
    const float scaled = BitCast<float>(magnitude) * 0x1p112f;
    return BitCast<float>(sign | BitCast<uint32_t>(scaled));
  }
};

// bfloat16 is the upper half of a float32.
struct Bfloat16 {
  static uint16_t FromFloat(float x) {
    const uint32_t bits = BitCast<uint32_t>(x);
    if ((bits & 0x7fffffff) > 0x7f800000) return 0x7fff;
    return (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
  }
  static float ToFloat(uint16_t bits) { return BitCast<float>(uint32_t{bits} << 16); }
};

// Rounds to odd: the last bit of an inexact result is 1, so that rounding it again to fewer bits is
// the same as rounding once.
inline float RoundToOdd(double x) {
  const float narrow = static_cast<float>(x);
  if (narrow == x || x != x || (BitCast<uint32_t>(narrow) & 1) != 0) return narrow;
  const bool larger = std::fabs(double{narrow}) > std::fabs(x);
  return BitCast<float>(BitCast<uint32_t>(narrow) + (larger ? -1 : 1));
}

// a b + c of 16-bit values, rounded to odd.
inline float FmaToOdd(float a, float b, float c) {
  const double product = double{a} * b;  // exact
  double sum = product + c;
  if (!std::isfinite(sum)) return static_cast<float>(sum);
  const double part = sum - product, lost = (product - (sum - part)) + (c - part);
  if (lost != 0 && (BitCast<uint64_t>(sum) & 1) == 0) {
    sum = std::nextafter(sum, lost > 0 ? INFINITY : -INFINITY);
  }
  return RoundToOdd(sum);
}

// The same of the bits of a format, rounded to it.
template <typename Format>
uint16_t Fma(uint16_t a, uint16_t b, uint16_t c) {
  return Format::FromFloat(FmaToOdd(Format::ToFloat(a), Format::ToFloat(b), Format::ToFloat(c)));
}

}  // namespace emulation

#endif  // SASA_TF_TESTS_NATIVE_EMULATED_GPU_HALF_TYPES_H_
