// Elements of the arrays, to and from float32.
//
// In each source file their own, as files are compiled for different instruction sets.
#ifndef SASA_TF_NATIVE_CPU_NUMBERS_H_
#define SASA_TF_NATIVE_CPU_NUMBERS_H_

#include <cstdint>

namespace sasa {
namespace {

struct Float32 {
  using Stored = float;

  static float Load(float x) { return x; }
  static float Round(float x) { return x; }
};

struct Bfloat16 {
  using Stored = uint16_t;

  static float Load(uint16_t bits) {
    const uint32_t wide = uint32_t{bits} << 16;
    float x;
    __builtin_memcpy(&x, &wide, 4);
    return x;
  }

  static uint16_t Round(float x) {
    uint32_t wide;
    __builtin_memcpy(&wide, &x, 4);
    const uint32_t even = wide + 0x7fff + ((wide >> 16) & 1);
    return x == x ? even >> 16 : 0x7fc0;
  }
};

struct Float16 {
  using Stored = uint16_t;

  static float Load(uint16_t bits) {
    const uint32_t exponent = bits & 0x7c00, sign = uint32_t(bits & 0x8000) << 16;
    const float subnormal = static_cast<float>(bits & 0x3ff) * 0x1p-24f;
    uint32_t wide;
    __builtin_memcpy(&wide, &subnormal, 4);
    if (exponent != 0) {
      wide = (uint32_t(bits & 0x7fff) << 13) + (exponent == 0x7c00 ? 224u << 23 : 112u << 23);
    }
    wide |= sign;
    float x;
    __builtin_memcpy(&x, &wide, 4);
    return x;
  }

  static uint16_t Round(float x) {
    uint32_t wide;
    __builtin_memcpy(&wide, &x, 4);
    const uint32_t sign = (wide >> 16) & 0x8000, magnitude = wide & 0x7fffffff;
    // Subnormal: the sum with 0.5 leaves the 10 bits at the end of the fraction, rounded to even.
    float small;
    __builtin_memcpy(&small, &magnitude, 4);
    small += 0.5f;
    uint32_t small_bits;
    __builtin_memcpy(&small_bits, &small, 4);
    const uint32_t subnormal = small_bits - 0x3f000000;
    const uint32_t normal = (magnitude - (112u << 23) + 0xfff + ((magnitude >> 13) & 1)) >> 13;
    const uint32_t half = magnitude > 0x7f800000    ? 0x7e00
                          : magnitude >= 0x477ff000 ? 0x7c00
                          : magnitude < 0x38800000  ? subnormal
                                                    : normal;
    return sign | half;
  }
};

}  // namespace
}  // namespace sasa

#endif  // SASA_TF_NATIVE_CPU_NUMBERS_H_
