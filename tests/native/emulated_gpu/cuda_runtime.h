// Emulation of the CUDA header of this name.
#ifndef SASA_TF_TESTS_NATIVE_EMULATED_GPU_CUDA_RUNTIME_H_
#define SASA_TF_TESTS_NATIVE_EMULATED_GPU_CUDA_RUNTIME_H_

#include <math.h>

#include <cstdint>
#include <cstring>

#include "scheduler.h"

#define __global__
#define __device__
#define __host__
#define __constant__
#define __grid_constant__
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__ __attribute__((noinline))
#define __launch_bounds__(...)
#define __align__(n) __attribute__((aligned(n)))
// All emulated threads run in one CPU thread. Unlike `static`, `thread_local` may follow `extern`.
#define __shared__ thread_local

struct int2 {
  int x, y;
};
struct int3 {
  int x, y, z;
};
struct alignas(16) int4 {
  int x, y, z, w;
};
struct alignas(8) uint2 {
  unsigned x, y;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
struct alignas(4) short2 {
  short x, y;
};
struct alignas(8) short4 {
  short x, y, z, w;
};
struct alignas(4) ushort2 {
  unsigned short x, y;
};
struct alignas(8) ushort4 {
  unsigned short x, y, z, w;
};
struct alignas(4) uchar4 {
  unsigned char x, y, z, w;
};
struct alignas(8) float2 {
  float x, y;
};
struct float3 {
  float x, y, z;
};
struct alignas(16) float4 {
  float x, y, z, w;
};

inline int2 make_int2(int x, int y) { return {x, y}; }
inline int3 make_int3(int x, int y, int z) { return {x, y, z}; }
inline int4 make_int4(int x, int y, int z, int w) { return {x, y, z, w}; }
inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
inline uint3 make_uint3(unsigned x, unsigned y, unsigned z) { return {x, y, z}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }
inline short2 make_short2(short x, short y) { return {x, y}; }
inline short4 make_short4(short x, short y, short z, short w) { return {x, y, z, w}; }
inline ushort2 make_ushort2(unsigned short x, unsigned short y) { return {x, y}; }
inline ushort4 make_ushort4(unsigned short x, unsigned short y, unsigned short z,
                            unsigned short w) {
  return {x, y, z, w};
}
inline uchar4 make_uchar4(unsigned char x, unsigned char y, unsigned char z, unsigned char w) {
  return {x, y, z, w};
}
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float3 make_float3(float x, float y, float z) { return {x, y, z}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }

struct dim3 {
  unsigned x, y, z;
  dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};

inline constexpr int warpSize = emulation::kWarp;

inline void __syncthreads(
    emulation::SourceLocation location = emulation::SourceLocation::Current()) {
  emulation::Barrier(location);
}
inline void __syncwarp(unsigned mask = ~0u,
                       emulation::SourceLocation location = emulation::SourceLocation::Current()) {
  emulation::RunCollective({"__syncwarp", location, mask, true, false, nullptr, nullptr}, nullptr);
}
inline void __threadfence() {}
inline void __threadfence_block() {}

namespace emulation {

// Each lane receives the value of lane `from(lane)`, or keeps its own.
template <typename T, typename From>
T Shuffle(const char* name, SourceLocation location, unsigned mask, T value, From from) {
  struct Operands {
    T value, result;
    int from;
  } operands = {value, value, from(Lane())};
  RunCollective(name, location, mask, false, operands, [&](Operands* const* all) {
    for (int lane = 0; lane < kWarp; ++lane) {
      if (all[lane] == nullptr || all[lane]->from == lane) continue;
      if (all[all[lane]->from] == nullptr) {
        Fail("%s at %s:%d: lane %d reads from lane %d, which does not participate", name,
             location.file, location.line, lane, all[lane]->from);
      }
      all[lane]->result = all[all[lane]->from]->value;
    }
  });
  return operands.result;
}

// Reduces over the lanes: all receive `start` after result = add(result, lane, value) for each.
template <typename T, typename Result, typename Add>
Result Combine(const char* name, SourceLocation location, unsigned mask, T value, Result start,
               Add add) {
  struct Operands {
    T value;
    Result result;
  } operands = {value, start};
  RunCollective(name, location, mask, false, operands, [&](Operands* const* all) {
    Result result = start;
    for (int lane = 0; lane < kWarp; ++lane) {
      if (all[lane] != nullptr) result = add(result, lane, all[lane]->value);
    }
    for (int lane = 0; lane < kWarp; ++lane) {
      if (all[lane] != nullptr) all[lane]->result = result;
    }
  });
  return operands.result;
}

template <typename To, typename From>
To BitCast(From from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  std::memcpy(&to, &from, sizeof(to));
  return to;
}

}  // namespace emulation

template <typename T>
T __shfl_sync(unsigned mask, T value, int lane, int width = 32,
              emulation::SourceLocation location = emulation::SourceLocation::Current()) {
  return emulation::Shuffle("__shfl_sync", location, mask, value,
                            [&](int self) { return self / width * width + (lane & (width - 1)); });
}
template <typename T>
T __shfl_xor_sync(unsigned mask, T value, int bits, int width = 32,
                  emulation::SourceLocation location = emulation::SourceLocation::Current()) {
  return emulation::Shuffle("__shfl_xor_sync", location, mask, value, [&](int self) {
    const int from = self ^ bits;
    return from / width > self / width ? self : from;
  });
}
template <typename T>
T __shfl_up_sync(unsigned mask, T value, unsigned distance, int width = 32,
                 emulation::SourceLocation location = emulation::SourceLocation::Current()) {
  return emulation::Shuffle("__shfl_up_sync", location, mask, value, [&](int self) {
    return self % width < static_cast<int>(distance) ? self : self - static_cast<int>(distance);
  });
}
template <typename T>
T __shfl_down_sync(unsigned mask, T value, unsigned distance, int width = 32,
                   emulation::SourceLocation location = emulation::SourceLocation::Current()) {
  return emulation::Shuffle("__shfl_down_sync", location, mask, value, [&](int self) {
    const int from = self % width + static_cast<int>(distance);
    return from >= width ? self : self + static_cast<int>(distance);
  });
}
inline int __any_sync(unsigned mask, int value,
                      emulation::SourceLocation location = emulation::SourceLocation::Current()) {
  return emulation::Combine("__any_sync", location, mask, value, 0,
                            [](int any, int, int self) { return int(any || self); });
}
inline int __all_sync(unsigned mask, int value,
                      emulation::SourceLocation location = emulation::SourceLocation::Current()) {
  return emulation::Combine("__all_sync", location, mask, value, 1,
                            [](int all, int, int self) { return int(all && self); });
}
inline unsigned __ballot_sync(
    unsigned mask, int value,
    emulation::SourceLocation location = emulation::SourceLocation::Current()) {
  return emulation::Combine(
      "__ballot_sync", location, mask, value, 0u,
      [](unsigned bits, int lane, int self) { return bits | unsigned{self != 0} << lane; });
}
template <typename T>
T __reduce_add_sync(unsigned mask, T value,
                    emulation::SourceLocation location = emulation::SourceLocation::Current()) {
  return emulation::Combine("__reduce_add_sync", location, mask, value, T(0),
                            [](T a, int, T b) { return T(unsigned(a) + unsigned(b)); });
}
template <typename T>
T __reduce_max_sync(unsigned mask, T value,
                    emulation::SourceLocation location = emulation::SourceLocation::Current()) {
  return emulation::Combine("__reduce_max_sync", location, mask, value, value,
                            [](T a, int, T b) { return a > b ? a : b; });
}
template <typename T>
T __reduce_min_sync(unsigned mask, T value,
                    emulation::SourceLocation location = emulation::SourceLocation::Current()) {
  return emulation::Combine("__reduce_min_sync", location, mask, value, value,
                            [](T a, int, T b) { return a < b ? a : b; });
}
template <typename T>
T __reduce_or_sync(unsigned mask, T value,
                   emulation::SourceLocation location = emulation::SourceLocation::Current()) {
  return emulation::Combine("__reduce_or_sync", location, mask, value, T(0),
                            [](T a, int, T b) { return a | b; });
}

template <typename T>
T __ldg(const T* from) {
  if (reinterpret_cast<uintptr_t>(from) % sizeof(T) != 0) {
    emulation::Fail("misaligned __ldg of %d bytes from %p", int(sizeof(T)),
                    static_cast<const void*>(from));
  }
  return *from;
}
template <typename T>
T __ldcs(const T* from) {
  return __ldg(from);
}
template <typename T>
T __ldcg(const T* from) {
  return __ldg(from);
}
template <typename T>
void __stcs(T* to, T value) {
  *to = value;
}
template <typename T>
void __stcg(T* to, T value) {
  *to = value;
}

// CTAs do not overlap, and threads are only switched where they wait.
template <typename T>
T atomicAdd(T* to, T value) {
  const T before = *to;
  *to = before + value;
  return before;
}

inline unsigned __umulhi(unsigned a, unsigned b) { return uint64_t{a} * b >> 32; }
inline int __mulhi(int a, int b) { return static_cast<int>(int64_t{a} * b >> 32); }
inline int __popc(unsigned bits) { return __builtin_popcount(bits); }
inline int __clz(unsigned bits) { return bits ? __builtin_clz(bits) : 32; }
inline int __ffs(int bits) { return __builtin_ffs(bits); }
inline unsigned __byte_perm(unsigned low, unsigned high, unsigned selector) {
  const uint64_t bytes = uint64_t{high} << 32 | low;
  unsigned result = 0;
  for (int i = 0; i < 4; ++i) {
    const unsigned choice = selector >> 4 * i & 15;
    unsigned byte = bytes >> 8 * (choice & 7) & 255;
    if (choice & 8) byte = byte & 128 ? 255 : 0;
    result |= byte << 8 * i;
  }
  return result;
}
inline unsigned __funnelshift_l(unsigned low, unsigned high, unsigned shift) {
  return (uint64_t{high} << 32 | low) << (shift & 31) >> 32;
}
inline unsigned __funnelshift_r(unsigned low, unsigned high, unsigned shift) {
  return (uint64_t{high} << 32 | low) >> (shift & 31);
}
inline unsigned __float_as_uint(float x) { return emulation::BitCast<unsigned>(x); }
inline int __float_as_int(float x) { return emulation::BitCast<int>(x); }
inline float __uint_as_float(unsigned x) { return emulation::BitCast<float>(x); }
inline float __int_as_float(int x) { return emulation::BitCast<float>(x); }
inline float __fdividef(float a, float b) { return a / b; }
inline float __frcp_rn(float x) { return 1.f / x; }
inline float __expf(float x) { return expf(x); }
inline float __logf(float x) { return logf(x); }
inline float __log2f(float x) { return log2f(x); }
inline float rsqrtf(float x) { return 1.f / sqrtf(x); }

#define SASA_EMULATION_MIN_MAX(T)                  \
  inline T min(T a, T b) { return b < a ? b : a; } \
  inline T max(T a, T b) { return a < b ? b : a; }
SASA_EMULATION_MIN_MAX(int)
SASA_EMULATION_MIN_MAX(unsigned)
SASA_EMULATION_MIN_MAX(long)
SASA_EMULATION_MIN_MAX(unsigned long)
SASA_EMULATION_MIN_MAX(long long)
SASA_EMULATION_MIN_MAX(unsigned long long)
#undef SASA_EMULATION_MIN_MAX
inline float min(float a, float b) { return fminf(a, b); }
inline float max(float a, float b) { return fmaxf(a, b); }

// Host functions. Two multiprocessors with one CTA each, so that CTAs compute several tiles.
enum cudaError_t { cudaSuccess, cudaErrorInvalidValue };
using cudaStream_t = struct CUstream_st*;
enum cudaDeviceAttr {
  cudaDevAttrMultiProcessorCount,
  cudaDevAttrMaxSharedMemoryPerMultiprocessor,
  cudaDevAttrMaxSharedMemoryPerBlockOptin,
  cudaDevAttrComputeCapabilityMajor,
  cudaDevAttrComputeCapabilityMinor,
};
enum cudaFuncAttribute {
  cudaFuncAttributeMaxDynamicSharedMemorySize,
  cudaFuncAttributePreferredSharedMemoryCarveout,
};
enum cudaMemcpyKind { cudaMemcpyDeviceToDevice, cudaMemcpyDefault };

inline cudaError_t cudaGetLastError() { return cudaSuccess; }
inline const char* cudaGetErrorString(cudaError_t error) {
  return error == cudaSuccess ? "no error" : "invalid argument";
}
inline cudaError_t cudaGetDevice(int* device) { return *device = 0, cudaSuccess; }
inline cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
  switch (attribute) {
    case cudaDevAttrMultiProcessorCount:
      *value = 2;
      break;
    case cudaDevAttrMaxSharedMemoryPerMultiprocessor:
      *value = 233472;
      break;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
      *value = emulation::kMaxSharedBytes;
      break;
    case cudaDevAttrComputeCapabilityMajor:
      *value = 9;
      break;
    case cudaDevAttrComputeCapabilityMinor:
      *value = 0;
      break;
  }
  return cudaSuccess;
}
template <typename Kernel>
cudaError_t cudaFuncSetAttribute(Kernel, cudaFuncAttribute, int) {
  return cudaSuccess;
}
struct cudaFuncAttributes {
  int ptxVersion, binaryVersion;
};
inline cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* attributes, const void*) {
  return *attributes = {90, 90}, cudaSuccess;
}
inline cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, const void*, int,
                                                                 size_t) {
  return *blocks = 1, cudaSuccess;
}
inline cudaError_t cudaMemsetAsync(void* to, int byte, size_t count, cudaStream_t = nullptr) {
  return std::memset(to, byte, count), cudaSuccess;
}
inline cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t count, cudaMemcpyKind,
                                   cudaStream_t = nullptr) {
  return std::memcpy(to, from, count), cudaSuccess;
}

#endif  // SASA_TF_TESTS_NATIVE_EMULATED_GPU_CUDA_RUNTIME_H_
