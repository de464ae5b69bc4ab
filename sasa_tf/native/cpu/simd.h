// Vectors of floats, and conversions between pixels [pixel][channel] and planes [channel][pixel].
//
// For sources that are compiled once for each instruction set, with SASA_VARIANT (the namespace)
// and SASA_LANES (floats in a vector) defined. They use no inline functions of the standard
// library: the linker would keep one copy, perhaps one that this CPU cannot run.
#ifndef SASA_TF_NATIVE_CPU_SIMD_H_
#define SASA_TF_NATIVE_CPU_SIMD_H_

#include <cstdint>

#include "cpu/element_types.h"

namespace sasa {
namespace SASA_VARIANT {
namespace {

constexpr int64_t kLanes = SASA_LANES;

typedef float Vector __attribute__((vector_size(4 * SASA_LANES)));
typedef int32_t IntVector __attribute__((vector_size(4 * SASA_LANES)));
typedef float UnalignedVector __attribute__((vector_size(4 * SASA_LANES), aligned(4), may_alias));
typedef float Vector4 __attribute__((vector_size(16)));
typedef int32_t IntVector4 __attribute__((vector_size(16)));
typedef float UnalignedVector4 __attribute__((vector_size(16), aligned(4), may_alias));

inline Vector Load(const float* p) { return *reinterpret_cast<const UnalignedVector*>(p); }
inline void Store(float* p, Vector v) { *reinterpret_cast<UnalignedVector*>(p) = v; }
inline Vector Broadcast(float x) { return x - Vector{}; }
inline Vector Max(Vector a, Vector b) { return a > b ? a : b; }
inline int64_t Max(int64_t a, int64_t b) { return a > b ? a : b; }
inline int64_t Min(int64_t a, int64_t b) { return a < b ? a : b; }

// log(x) to 2 ulp for normal x, a number for others.
inline Vector Log(Vector x) {
  const IntVector bits = reinterpret_cast<IntVector>(x);
  // The exponent such that sqrt(1/2) <= x / 2^exponent < sqrt(2).
  const IntVector exponent = (bits - 0x3f3504f3) >> 23;
  const Vector r = reinterpret_cast<Vector>(bits - (exponent << 23)) - 1.0f;
  const Vector n = __builtin_convertvector(exponent, Vector);
  Vector y = Broadcast(7.0376836292e-2f);
  y = y * r - 1.1514610310e-1f;
  y = y * r + 1.1676998740e-1f;
  y = y * r - 1.2420140846e-1f;
  y = y * r + 1.4249322787e-1f;
  y = y * r - 1.6668057665e-1f;
  y = y * r + 2.0000714765e-1f;
  y = y * r - 2.4999993993e-1f;
  y = y * r + 3.3333331174e-1f;
  y = y * (r * r) * r - 0.5f * (r * r) + n * -2.12194440e-4f;
  return r + y + n * 0.693359375f;
}

template <int kValue>
struct IntConstant {
  static constexpr int value = kValue;
};

inline void Scale(float* p, int64_t floats, float factor) {
  for (int64_t i = 0; i < floats; ++i) p[i] *= factor;
}

inline void Zero(float* p, int64_t floats) { __builtin_memset(p, 0, floats * sizeof(float)); }

inline float Sum(Vector v) {
  float sum = 0;
  for (int64_t i = 0; i < kLanes; ++i) sum += v[i];
  return sum;
}

// exp(x) to 2 ulp for x up to 80; 0 below -87, where the result would be subnormal. NaN for NaN.
inline Vector Exp(Vector x) {
  const Vector magic = Broadcast(12582912.0f);  // 1.5 * 2^23: adding it rounds to an integer
  const Vector shifted = x * 1.44269504f + magic;
  const Vector n = shifted - magic;
  const Vector r = x - n * 0.693359375f - n * -2.12194440e-4f;  // |r| <= ln(2) / 2
  Vector y = Broadcast(1.9875691e-4f);
  y = y * r + 1.3981999e-3f;
  y = y * r + 8.3334519e-3f;
  y = y * r + 4.1665796e-2f;
  y = y * r + 1.6666666e-1f;
  y = y * r + 0.5f;
  y = y * (r * r) + r + 1.0f;
  // 2^n as a factor, not added to the exponent of y, where it could turn a NaN into a number.
  const Vector power =
      y * reinterpret_cast<Vector>((reinterpret_cast<IntVector>(shifted) << 23) + 0x3f800000);
  return reinterpret_cast<Vector>(reinterpret_cast<IntVector>(power) &
                                  ~(x <= Broadcast(-87.0f)));
}

#ifdef __clang__
#define SASA_SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define SASA_SHUFFLE(a, b, ...) __builtin_shuffle(a, b, IntVector4{__VA_ARGS__})
#endif

inline void Transpose(const float* from, int64_t from_stride, float* to, int64_t to_stride) {
  const auto row = [&](int i) {
    return *reinterpret_cast<const UnalignedVector4*>(from + i * from_stride);
  };
  const auto store = [&](int i, Vector4 column) {
    *reinterpret_cast<UnalignedVector4*>(to + i * to_stride) = column;
  };
  const Vector4 low_01 = SASA_SHUFFLE(row(0), row(1), 0, 4, 1, 5);
  const Vector4 low_23 = SASA_SHUFFLE(row(2), row(3), 0, 4, 1, 5);
  const Vector4 high_01 = SASA_SHUFFLE(row(0), row(1), 2, 6, 3, 7);
  const Vector4 high_23 = SASA_SHUFFLE(row(2), row(3), 2, 6, 3, 7);
  store(0, SASA_SHUFFLE(low_01, low_23, 0, 1, 4, 5));
  store(1, SASA_SHUFFLE(low_01, low_23, 2, 3, 6, 7));
  store(2, SASA_SHUFFLE(high_01, high_23, 0, 1, 4, 5));
  store(3, SASA_SHUFFLE(high_01, high_23, 2, 3, 6, 7));
}

// planes[d * plane + i] = pixels[i * stride + d].
inline void PixelsToPlanes(const float* pixels, int64_t stride, int64_t count, int64_t channels,
                           float* planes, int64_t plane) {
  int64_t i = 0;
  for (; i + 4 <= count; i += 4) {
    const float* from = pixels + i * stride;
    int64_t d = 0;
    for (; d + 4 <= channels; d += 4) Transpose(from + d, stride, planes + d * plane + i, plane);
    for (; d < channels; ++d) {
      for (int64_t j = 0; j < 4; ++j) planes[d * plane + i + j] = from[j * stride + d];
    }
  }
  for (; i < count; ++i) {
    for (int64_t d = 0; d < channels; ++d) planes[d * plane + i] = pixels[i * stride + d];
  }
}

// pixels[i * stride + d] = planes[d * plane + i].
inline void PlanesToPixels(const float* planes, int64_t plane, int64_t count, int64_t channels,
                           float* pixels, int64_t stride) {
  int64_t i = 0;
  for (; i + 4 <= count; i += 4) {
    float* to = pixels + i * stride;
    int64_t d = 0;
    for (; d + 4 <= channels; d += 4) Transpose(planes + d * plane + i, plane, to + d, stride);
    for (; d < channels; ++d) {
      for (int64_t j = 0; j < 4; ++j) to[j * stride + d] = planes[d * plane + i + j];
    }
  }
  for (; i < count; ++i) {
    for (int64_t d = 0; d < channels; ++d) pixels[i * stride + d] = planes[d * plane + i];
  }
}

template <typename From, typename To>
struct ConstLike {
  using type = To;
};
template <typename From, typename To>
struct ConstLike<const From, To> {
  using type = const To;
};
template <typename From, typename To>
using CopyConst = typename ConstLike<From, To>::type;

// Loads `count` pixels that are `stride` elements apart as planes. `row` is a buffer for them.
template <typename Element>
void LoadPixels(const typename Element::Stored* from, int64_t stride, int64_t count, int64_t depth,
                float* to, int64_t plane, float* row) {
  if constexpr (sizeof(*from) == 4) {
    PixelsToPlanes(from, stride, count, depth, to, plane);
  } else {
    for (int64_t i = 0; i < count; ++i) {
      for (int64_t d = 0; d < depth; ++d) row[i * depth + d] = Element::Load(from[i * stride + d]);
    }
    PixelsToPlanes(row, depth, count, depth, to, plane);
  }
}

template <typename Element>
void StorePixels(const float* from, int64_t plane, int64_t count, int64_t depth,
                 typename Element::Stored* to, int64_t stride, float* row) {
  if constexpr (sizeof(*to) == 4) {
    PlanesToPixels(from, plane, count, depth, to, stride);
  } else {
    PlanesToPixels(from, plane, count, depth, row, depth);
    for (int64_t i = 0; i < count; ++i) {
      for (int64_t d = 0; d < depth; ++d) to[i * stride + d] = Element::Round(row[i * depth + d]);
    }
  }
}

// Divides one allocation into aligned arrays.
class ScratchArena {
 public:
  explicit ScratchArena(float* memory) : next_(memory) {}

  float* Allocate(int64_t floats) {
    float* array = next_;
    next_ += (floats + 15) / 16 * 16;
    return array;
  }

 private:
  float* next_;
};

}  // namespace
}  // namespace SASA_VARIANT
}  // namespace sasa

#endif  // SASA_TF_NATIVE_CPU_SIMD_H_
