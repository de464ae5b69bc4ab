// Element types: conversions to and from float32.
//
// In an anonymous namespace, because the files that include this are compiled for different
// instruction sets.
#ifndef SASA_TF_NATIVE_CPU_ELEMENT_TYPES_H_
#define SASA_TF_NATIVE_CPU_ELEMENT_TYPES_H_

#include <cstdint>

#include "local_attention.h"

namespace sasa {
namespace {

inline uint32_t Bits(float x) {
  uint32_t bits;
  __builtin_memcpy(&bits, &x, 4);
  return bits;
}

inline float FromBits(uint32_t bits) {
  float x;
  __builtin_memcpy(&x, &bits, 4);
  return x;
}

struct Float32 {
  using Stored = float;

  static float Load(float x) { return x; }
  static float Round(float x) { return x; }
};

struct Bfloat16 {
  using Stored = uint16_t;

  static float Load(uint16_t bits) { return FromBits(uint32_t{bits} << 16); }

  static uint16_t Round(float x) {
    const uint32_t wide = Bits(x);
    const uint32_t even = wide + 0x7fff + ((wide >> 16) & 1);
    return x == x ? even >> 16 : 0x7fc0;
  }
};

struct Float16 {
  using Stored = uint16_t;

  static float Load(uint16_t bits) {
    const uint32_t exponent = bits & 0x7c00, sign = uint32_t(bits & 0x8000) << 16;
    const float subnormal = static_cast<float>(bits & 0x3ff) * 0x1p-24f;
    uint32_t wide = Bits(subnormal);
    if (exponent != 0) {
      wide = (uint32_t(bits & 0x7fff) << 13) + (exponent == 0x7c00 ? 224u << 23 : 112u << 23);
    }
    return FromBits(wide | sign);
  }

  static uint16_t Round(float x) {
    const uint32_t wide = Bits(x);
    const uint32_t sign = (wide >> 16) & 0x8000, magnitude = wide & 0x7fffffff;
    // Subnormal: adding 0.5 moves the 10 bits to the end of the fraction and rounds them to even.
    const uint32_t subnormal = Bits(FromBits(magnitude) + 0.5f) - 0x3f000000;
    const uint32_t normal = (magnitude - (112u << 23) + 0xfff + ((magnitude >> 13) & 1)) >> 13;
    const uint32_t half = magnitude > 0x7f800000    ? 0x7e00
                          : magnitude >= 0x477ff000 ? 0x7c00
                          : magnitude < 0x38800000  ? subnormal
                                                    : normal;
    return sign | half;
  }
};

// Calls `call` with an object of the element type.
template <typename Call>
void DispatchDType(DType type, Call call) {
  switch (type) {
    case DType::kFloat32:
      return call(Float32());
    case DType::kBfloat16:
      return call(Bfloat16());
    case DType::kFloat16:
      return call(Float16());
  }
}

}  // namespace
}  // namespace sasa

#endif  // SASA_TF_NATIVE_CPU_ELEMENT_TYPES_H_
