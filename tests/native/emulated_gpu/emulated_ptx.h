// Emulation of cuda/ptx.cuh. The fragments of ldmatrix and mma are those of the PTX ISA.
#ifndef SASA_TF_TESTS_NATIVE_EMULATED_GPU_EMULATED_PTX_H_
#define SASA_TF_TESTS_NATIVE_EMULATED_GPU_EMULATED_PTX_H_

#include <cmath>
#include <cstdint>
#include <type_traits>

#include "cuda/half_types.h"
#include "cuda_runtime.h"
#include "half_types.h"
#include "instructions.h"
#include "scheduler.h"

namespace sasa {

using emulation::SourceLocation;

namespace {

// The arrays that kernels declare as `extern __shared__`, in each namespace that has kernels.
alignas(1024) thread_local char memory[emulation::kMaxSharedBytes];
alignas(1024) thread_local float tables[emulation::kMaxSharedBytes / 4];
const emulation::DynamicShared declared_memory(memory), declared_tables(tables);

}  // namespace

namespace stem {
namespace {

alignas(1024) thread_local char memory[emulation::kMaxSharedBytes];
const emulation::DynamicShared declared_memory(memory);

}  // namespace
}  // namespace stem

// Kernels run one after another, as without PDL.
inline void GridLaunchDependents() {}
inline void GridDependencyWait() {}

inline float Exp2Approx(float x) {
  const float y = exp2f(x);
  return y < 0x1p-126f ? 0.f : y;
}

inline float RcpApprox(float x) { return 1.f / x; }
inline float Log2Approx(float x) { return log2f(x); }

// The conversions of an element type.
template <typename T>
using FormatOf =
    std::conditional_t<std::is_same_v<T, Float16>, emulation::Float16, emulation::Bfloat16>;

template <typename T>
T ConvertTo(float x) {
  if constexpr (std::is_same_v<T, float>) {
    return x;
  } else {
    return {FormatOf<T>::FromFloat(x)};
  }
}

template <typename T>
uint32_t PackX2(float low, float high) {
  using Format = FormatOf<T>;
  return Format::FromFloat(low) | static_cast<uint32_t>(Format::FromFloat(high)) << 16;
}

inline float2 UnpackX2(uint32_t packed, Float16) {
  using emulation::Float16;
  return make_float2(Float16::ToFloat(packed), Float16::ToFloat(packed >> 16));
}

template <typename T>
uint32_t FmaX2(uint32_t a, uint32_t b, uint32_t c) {
  uint32_t sums = 0;
  for (int shift = 0; shift < 32; shift += 16) {
    const uint16_t sum = emulation::Fma<FormatOf<T>>(a >> shift, b >> shift, c >> shift);
    sums |= static_cast<uint32_t>(sum) << shift;
  }
  return sums;
}
template <typename T>
uint32_t MulX2(uint32_t a, uint32_t b) {
  return FmaX2<T>(a, b, 0x80008000u);  // plus minus zero
}

inline uint32_t SmemAddress(const void* pointer) { return emulation::SmemAddressOf(pointer); }

inline void CpAsync16(uint32_t smem, const void* global, bool valid,
                      SourceLocation location = SourceLocation::Current()) {
  emulation::StartCpAsync("CpAsync16", location, smem, global, valid ? 16 : 0, 16);
}
inline void CpAsync8(uint32_t smem, const void* global, bool valid,
                     SourceLocation location = SourceLocation::Current()) {
  emulation::StartCpAsync("CpAsync8", location, smem, global, valid ? 8 : 0, 8);
}
inline void CpAsync4(uint32_t smem, const void* global, bool valid,
                     SourceLocation location = SourceLocation::Current()) {
  emulation::StartCpAsync("CpAsync4", location, smem, global, valid ? 4 : 0, 4);
}
inline void CpAsyncWaitAll() {
  emulation::CommitCpAsyncGroup();
  emulation::WaitCpAsyncGroups(0);
}

inline void CpAsyncCommitGroup() { emulation::CommitCpAsyncGroup(); }
template <int kGroups>
void CpAsyncWaitGroup() {
  emulation::WaitCpAsyncGroups(kGroups);
}

inline void LdmatrixX4(uint32_t smem, uint32_t (&matrices)[4],
                       SourceLocation location = SourceLocation::Current()) {
  emulation::Ldmatrix("LdmatrixX4", location, 4, false, smem, matrices);
}
inline void LdmatrixX4Trans(uint32_t smem, uint32_t (&matrices)[4],
                            SourceLocation location = SourceLocation::Current()) {
  emulation::Ldmatrix("LdmatrixX4Trans", location, 4, true, smem, matrices);
}
inline void LdmatrixX2(uint32_t smem, uint32_t& first, uint32_t& second,
                       SourceLocation location = SourceLocation::Current()) {
  uint32_t matrices[2];
  emulation::Ldmatrix("LdmatrixX2", location, 2, false, smem, matrices);
  first = matrices[0];
  second = matrices[1];
}
inline void LdmatrixX2Trans(uint32_t smem, uint32_t& first, uint32_t& second,
                            SourceLocation location = SourceLocation::Current()) {
  uint32_t matrices[2];
  emulation::Ldmatrix("LdmatrixX2Trans", location, 2, true, smem, matrices);
  first = matrices[0];
  second = matrices[1];
}
inline void StmatrixX4(uint32_t smem, uint32_t m0, uint32_t m1, uint32_t m2, uint32_t m3,
                       SourceLocation location = SourceLocation::Current()) {
  emulation::Stmatrix("StmatrixX4", location, 4, false, smem, {m0, m1, m2, m3});
}
inline uint32_t Movmatrix(uint32_t a, SourceLocation location = SourceLocation::Current()) {
  return emulation::Movmatrix("Movmatrix", location, a);
}
inline void StmatrixX4Trans(uint32_t smem, uint32_t m0, uint32_t m1, uint32_t m2, uint32_t m3,
                            SourceLocation location = SourceLocation::Current()) {
  emulation::Stmatrix("StmatrixX4Trans", location, 4, true, smem, {m0, m1, m2, m3});
}

template <typename T>
void MmaM16N8K16(float (&d)[4], const float (&c)[4], uint32_t a0, uint32_t a1, uint32_t a2,
                 uint32_t a3, uint32_t b0, uint32_t b1,
                 SourceLocation location = SourceLocation::Current()) {
  emulation::Mma<T>("MmaM16N8K16", location, d, c, {a0, a1, a2, a3}, {b0, b1}, 16);
}
template <typename T>
void MmaM16N8K16(float (&d)[4], uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3, uint32_t b0,
                 uint32_t b1, SourceLocation location = SourceLocation::Current()) {
  emulation::Mma<T>("MmaM16N8K16", location, d, d, {a0, a1, a2, a3}, {b0, b1}, 16);
}
template <typename T>
void MmaM16N8K8(float (&d)[4], const float (&c)[4], uint32_t a0, uint32_t a1, uint32_t b0,
                SourceLocation location = SourceLocation::Current()) {
  emulation::Mma<T>("MmaM16N8K8", location, d, c, {a0, a1}, {b0}, 8);
}
template <typename T>
void MmaM16N8K8(float (&d)[4], uint32_t a0, uint32_t a1, uint32_t b0,
                SourceLocation location = SourceLocation::Current()) {
  emulation::Mma<T>("MmaM16N8K8", location, d, d, {a0, a1}, {b0}, 8);
}

inline void MmaM16N8K8Tf32(float (&d)[4], const float (&c)[4], float a0, float a1, float a2,
                           float a3, float b0, float b1,
                           SourceLocation location = SourceLocation::Current()) {
  emulation::Tf32Fragments fragments = {{a0, a1, a2, a3}, {b0, b1}, {c[0], c[1], c[2], c[3]}};
  emulation::Mma("MmaM16N8K8Tf32", location, fragments);
  for (int i = 0; i < 4; ++i) d[i] = fragments.acc[i];
}

}  // namespace sasa

#endif  // SASA_TF_TESTS_NATIVE_EMULATED_GPU_EMULATED_PTX_H_
