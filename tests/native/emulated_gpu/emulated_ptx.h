// The functions of cuda/ptx.cuh, for kernels that run on a processor. Matrices lie over
// the lanes of a warp as the PTX ISA says.
#ifndef SASA_TF_TESTS_NATIVE_EMULATED_GPU_EMULATED_INSTRUCTIONS_H_
#define SASA_TF_TESTS_NATIVE_EMULATED_GPU_EMULATED_INSTRUCTIONS_H_

#include <cmath>
#include <cstdint>

#include "cuda_bf16.h"
#include "cuda_fp16.h"
#include "cuda_runtime.h"
#include "instructions.h"
#include "scheduler.h"

namespace sasa {

using emulation::Site;

namespace {

// What kernels declare as `extern __shared__`, by its name.
alignas(1024) thread_local char memory[emulation::kMostSharedBytes];
alignas(1024) thread_local float tables[emulation::kMostSharedBytes / 4];
const emulation::DynamicShared declared_memory(memory), declared_tables(tables);

}  // namespace

inline void GridLaunchDependents() {}
inline void GridDependencyWait() {}

inline float Exp2Approx(float x) {
  const float y = exp2f(x);
  return y < 0x1p-126f ? 0.f : y;
}

inline float RcpApprox(float x) { return 1.f / x; }
inline float Log2Approx(float x) { return log2f(x); }

template <typename T>
uint32_t PackX2(float low, float high) {
  return T(low).bits | static_cast<uint32_t>(T(high).bits) << 16;
}

inline uint32_t SmemAddress(const void* pointer) { return emulation::AddressOf(pointer); }

inline void CpAsync16(uint32_t to, const void* from, bool there, Site site = Site::Here()) {
  emulation::StartCopy("CpAsync16", site, to, from, there ? 16 : 0, 16);
}
inline void CpAsync4(uint32_t to, const void* from, bool there, Site site = Site::Here()) {
  emulation::StartCopy("CpAsync4", site, to, from, there ? 4 : 0, 4);
}
inline void CpAsyncWaitAll() {
  emulation::CommitCopies();
  emulation::AwaitCopies(0);
}

inline void CpAsyncCommitGroup() { emulation::CommitCopies(); }
template <int kGroups>
void CpAsyncWaitGroup() {
  emulation::AwaitCopies(kGroups);
}

inline void LdmatrixX4(uint32_t from, uint32_t (&to)[4], Site site = Site::Here()) {
  emulation::Ldmatrix("LdmatrixX4", site, 4, false, from, to);
}
inline void LdmatrixX4Trans(uint32_t from, uint32_t (&to)[4], Site site = Site::Here()) {
  emulation::Ldmatrix("LdmatrixX4Trans", site, 4, true, from, to);
}
inline void LdmatrixX2(uint32_t from, uint32_t& a, uint32_t& b, Site site = Site::Here()) {
  uint32_t to[2];
  emulation::Ldmatrix("LdmatrixX2", site, 2, false, from, to);
  a = to[0];
  b = to[1];
}
inline void LdmatrixX2Trans(uint32_t from, uint32_t& a, uint32_t& b, Site site = Site::Here()) {
  uint32_t to[2];
  emulation::Ldmatrix("LdmatrixX2Trans", site, 2, true, from, to);
  a = to[0];
  b = to[1];
}
inline uint32_t Movmatrix(uint32_t a, Site site = Site::Here()) {
  return emulation::Movmatrix("Movmatrix", site, a);
}

template <typename T>
void MmaM16N8K16(float (&sum)[4], const float (&start)[4], uint32_t a0, uint32_t a1, uint32_t a2,
                uint32_t a3, uint32_t b0, uint32_t b1, Site site = Site::Here()) {
  emulation::Mma<T>("MmaM16N8K16", site, sum, start, {a0, a1, a2, a3}, {b0, b1}, 16);
}
template <typename T>
void MmaM16N8K16(float (&sum)[4], uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3, uint32_t b0,
                uint32_t b1, Site site = Site::Here()) {
  emulation::Mma<T>("MmaM16N8K16", site, sum, sum, {a0, a1, a2, a3}, {b0, b1}, 16);
}
template <typename T>
void MmaM16N8K8(float (&sum)[4], const float (&start)[4], uint32_t a0, uint32_t a1, uint32_t b0,
               Site site = Site::Here()) {
  emulation::Mma<T>("MmaM16N8K8", site, sum, start, {a0, a1}, {b0}, 8);
}
template <typename T>
void MmaM16N8K8(float (&sum)[4], uint32_t a0, uint32_t a1, uint32_t b0, Site site = Site::Here()) {
  emulation::Mma<T>("MmaM16N8K8", site, sum, sum, {a0, a1}, {b0}, 8);
}

inline void MmaM16N8K8Tf32(float (&sum)[4], const float (&start)[4], float a0, float a1, float a2,
                         float a3, float b0, float b1, Site site = Site::Here()) {
  emulation::Tf32Fragments own = {
      {a0, a1, a2, a3}, {b0, b1}, {start[0], start[1], start[2], start[3]}};
  emulation::Mma("MmaM16N8K8Tf32", site, own);
  for (int i = 0; i < 4; ++i) sum[i] = own.sum[i];
}

}  // namespace sasa

#endif  // SASA_TF_TESTS_NATIVE_EMULATED_GPU_EMULATED_INSTRUCTIONS_H_
