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

// In each source file, one of its own.
template <typename... Parameters, typename... Arguments>
void Enqueue(void (*kernel)(Parameters...), int blocks, int threads, int bytes, cudaStream_t,
             Arguments... arguments) {
  auto thread = [&] { kernel(static_cast<Parameters>(arguments)...); };
  const auto call = [](void* context) { (*static_cast<decltype(thread)*>(context))(); };
  emulation::Run(blocks, threads, bytes, call, &thread);
}

template <typename Kernel>
bool CompiledForSm90(Kernel) {
  return true;
}

// One kernel after the other.
template <typename... Parameters, typename... Arguments>
void EnqueueEarly(void (*kernel)(Parameters...), Arguments... arguments) {
  Enqueue(kernel, arguments...);
}

}  // namespace

inline void LetNextKernelBegin() {}
inline void WaitForLastKernel() {}

inline float Exp2(float x) {
  const float y = exp2f(x);
  return y < 0x1p-126f ? 0.f : y;
}

inline float Inverse(float x) { return 1.f / x; }
inline float Log2(float x) { return log2f(x); }

template <typename T>
uint32_t Pack(float low, float high) {
  return T(low).bits | static_cast<uint32_t>(T(high).bits) << 16;
}

inline uint32_t SharedAddress(const void* pointer) { return emulation::AddressOf(pointer); }

inline void CopyAsync(uint32_t to, const void* from, bool there, Site site = Site::Here()) {
  emulation::StartCopy("CopyAsync", site, to, from, there ? 16 : 0, 16);
}
inline void CopyWordAsync(uint32_t to, const void* from, bool there, Site site = Site::Here()) {
  emulation::StartCopy("CopyWordAsync", site, to, from, there ? 4 : 0, 4);
}
inline void WaitForCopies() {
  emulation::CommitCopies();
  emulation::AwaitCopies(0);
}

inline void CommitCopies() { emulation::CommitCopies(); }
template <int kGroups>
void WaitForCopiesBut() {
  emulation::AwaitCopies(kGroups);
}

inline void LoadMatrices(uint32_t from, uint32_t (&to)[4], Site site = Site::Here()) {
  emulation::LoadMatrices("LoadMatrices", site, 4, false, from, to);
}
inline void LoadTransposed(uint32_t from, uint32_t (&to)[4], Site site = Site::Here()) {
  emulation::LoadMatrices("LoadTransposed", site, 4, true, from, to);
}
inline void LoadTwoMatrices(uint32_t from, uint32_t& a, uint32_t& b, Site site = Site::Here()) {
  uint32_t to[2];
  emulation::LoadMatrices("LoadTwoMatrices", site, 2, false, from, to);
  a = to[0];
  b = to[1];
}
inline void LoadTwoTransposed(uint32_t from, uint32_t& a, uint32_t& b, Site site = Site::Here()) {
  uint32_t to[2];
  emulation::LoadMatrices("LoadTwoTransposed", site, 2, true, from, to);
  a = to[0];
  b = to[1];
}
inline uint32_t Transposed(uint32_t a, Site site = Site::Here()) {
  return emulation::Transpose("Transposed", site, a);
}

template <typename T>
void Multiply16(float (&sum)[4], const float (&start)[4], uint32_t a0, uint32_t a1, uint32_t a2,
                uint32_t a3, uint32_t b0, uint32_t b1, Site site = Site::Here()) {
  emulation::Multiply<T>("Multiply16", site, sum, start, {a0, a1, a2, a3}, {b0, b1}, 16);
}
template <typename T>
void Multiply16(float (&sum)[4], uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3, uint32_t b0,
                uint32_t b1, Site site = Site::Here()) {
  emulation::Multiply<T>("Multiply16", site, sum, sum, {a0, a1, a2, a3}, {b0, b1}, 16);
}
template <typename T>
void Multiply8(float (&sum)[4], const float (&start)[4], uint32_t a0, uint32_t a1, uint32_t b0,
               Site site = Site::Here()) {
  emulation::Multiply<T>("Multiply8", site, sum, start, {a0, a1}, {b0}, 8);
}
template <typename T>
void Multiply8(float (&sum)[4], uint32_t a0, uint32_t a1, uint32_t b0, Site site = Site::Here()) {
  emulation::Multiply<T>("Multiply8", site, sum, sum, {a0, a1}, {b0}, 8);
}

inline void MultiplyTf32(float (&sum)[4], const float (&start)[4], float a0, float a1, float a2,
                         float a3, float b0, float b1, Site site = Site::Here()) {
  emulation::CoarseFactors own = {
      {a0, a1, a2, a3}, {b0, b1}, {start[0], start[1], start[2], start[3]}};
  emulation::Multiply("MultiplyTf32", site, own);
  for (int i = 0; i < 4; ++i) sum[i] = own.sum[i];
}

}  // namespace sasa

#endif  // SASA_TF_TESTS_NATIVE_EMULATED_GPU_EMULATED_INSTRUCTIONS_H_
