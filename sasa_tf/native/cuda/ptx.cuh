// Wrappers of the PTX instructions that CUDA C++ has no intrinsics for, named after them: cp.async,
// ldmatrix, stmatrix, movmatrix, mma, griddepcontrol and the approximate float32 functions; and the
// arithmetic of the 16-bit types.
//
// With SASA_EMULATED_GPU defined, tests/native/emulated_gpu/emulated_ptx.h replaces this file and
// the kernels run on the CPU.
#ifndef SASA_TF_NATIVE_CUDA_PTX_CUH_
#define SASA_TF_NATIVE_CUDA_PTX_CUH_

#include <cuda_runtime.h>

#include <cstdint>
#include <type_traits>

#include "cuda/half_types.h"

#ifdef SASA_EMULATED_GPU
#include "emulated_ptx.h"
#else

namespace sasa {

// Programmatic dependent launch (PDL): the next kernel of the stream may start once all CTAs of
// this one have called this or exited. See LaunchPdl.
__device__ inline void GridLaunchDependents() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}
// Waits until the previous kernel of the stream has completed and its writes are visible.
__device__ inline void GridDependencyWait() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

// 2^x. Denormal results are flushed to zero.
__device__ inline float Exp2Approx(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// 1 / x with an error of at most 1 ulp; x must not be denormal.
__device__ inline float RcpApprox(float x) {
  float y;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// log2(x), accurate to 22 bits; x must not be denormal.
__device__ inline float Log2Approx(float x) {
  float y;
  asm("lg2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// Converts a float to an element type.
template <typename T>
__device__ inline T ConvertTo(float x) {
  if constexpr (std::is_same_v<T, float>) {
    return x;
  } else {
    T y;
    if constexpr (std::is_same_v<T, Float16>) {
      asm("cvt.rn.f16.f32 %0, %1;" : "=h"(y.bits) : "f"(x));
    } else {
      asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(y.bits) : "f"(x));
    }
    return y;
  }
}
// Converts two floats to a packed fp16x2 or bf16x2 register.
template <typename T>
__device__ inline uint32_t PackX2(float low, float high);
template <>
__device__ inline uint32_t PackX2<Float16>(float low, float high) {
  uint32_t packed;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(high), "f"(low));
  return packed;
}
template <>
__device__ inline uint32_t PackX2<Bfloat16>(float low, float high) {
  uint32_t packed;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(high), "f"(low));
  return packed;
}

// Converts a packed fp16x2 register to two floats.
__device__ inline float2 UnpackX2(uint32_t packed, Float16) {
  float2 two;
  asm("cvt.f32.f16 %0, %1;" : "=f"(two.x) : "h"(static_cast<uint16_t>(packed)));
  asm("cvt.f32.f16 %0, %1;" : "=f"(two.y) : "h"(static_cast<uint16_t>(packed >> 16)));
  return two;
}

// a b and a b + c of packed registers.
template <typename T>
__device__ inline uint32_t MulX2(uint32_t a, uint32_t b) {
  uint32_t product;
  if constexpr (std::is_same_v<T, Float16>) {
    asm("mul.f16x2 %0, %1, %2;" : "=r"(product) : "r"(a), "r"(b));
  } else {
#if __CUDA_ARCH__ >= 900
    asm("mul.bf16x2 %0, %1, %2;" : "=r"(product) : "r"(a), "r"(b));
#else
    asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(product) : "r"(a), "r"(b), "r"(0x80008000u));
#endif
  }
  return product;
}
template <typename T>
__device__ inline uint32_t FmaX2(uint32_t a, uint32_t b, uint32_t c) {
  uint32_t sum;
  if constexpr (std::is_same_v<T, Float16>) {
    asm("fma.rn.f16x2 %0, %1, %2, %3;" : "=r"(sum) : "r"(a), "r"(b), "r"(c));
  } else {
    asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(sum) : "r"(a), "r"(b), "r"(c));
  }
  return sum;
}

// The 32-bit shared-memory address that the instructions below take.
__device__ inline uint32_t SmemAddress(const void* pointer) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(pointer));
}

// Copies 16 bytes from global to shared memory asynchronously; writes zeros if `valid` is false.
__device__ inline void CpAsync16(uint32_t smem, const void* global, bool valid) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(smem), "l"(global),
               "r"(valid ? 16 : 0));
}
// The same for 8 and for 4 bytes.
__device__ inline void CpAsync8(uint32_t smem, const void* global, bool valid) {
  asm volatile("cp.async.ca.shared.global [%0], [%1], 8, %2;" ::"r"(smem), "l"(global),
               "r"(valid ? 8 : 0));
}
__device__ inline void CpAsync4(uint32_t smem, const void* global, bool valid) {
  asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(smem), "l"(global),
               "r"(valid ? 4 : 0));
}
__device__ inline void CpAsyncWaitAll() {
  asm volatile("cp.async.commit_group;\ncp.async.wait_group 0;" ::: "memory");
}

__device__ inline void CpAsyncCommitGroup() { asm volatile("cp.async.commit_group;" ::: "memory"); }
// Waits until at most kGroups of the most recent groups are pending.
template <int kGroups>
__device__ inline void CpAsyncWaitGroup() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kGroups) : "memory");
}

// Load four or two 8x8 matrices of 16-bit elements. Lane i passes the address of row i % 8 of
// matrix i / 8.
__device__ inline void LdmatrixX4(uint32_t smem, uint32_t (&matrices)[4]) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(matrices[0]), "=r"(matrices[1]), "=r"(matrices[2]), "=r"(matrices[3])
               : "r"(smem));
}
__device__ inline void LdmatrixX4Trans(uint32_t smem, uint32_t (&matrices)[4]) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(matrices[0]), "=r"(matrices[1]), "=r"(matrices[2]), "=r"(matrices[3])
               : "r"(smem));
}
__device__ inline void LdmatrixX2(uint32_t smem, uint32_t& first, uint32_t& second) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0,%1}, [%2];"
               : "=r"(first), "=r"(second)
               : "r"(smem));
}
__device__ inline void LdmatrixX2Trans(uint32_t smem, uint32_t& first, uint32_t& second) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0,%1}, [%2];"
               : "=r"(first), "=r"(second)
               : "r"(smem));
}
// Stores four 8x8 matrices of 16-bit elements to the addresses that LdmatrixX4 would load them from.
// Only for sm_90 and later.
__device__ inline void StmatrixX4(uint32_t smem, uint32_t m0, uint32_t m1, uint32_t m2,
                                  uint32_t m3) {
#if __CUDA_ARCH__ >= 900
  asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1,%2,%3,%4};" ::"r"(smem), "r"(m0),
               "r"(m1), "r"(m2), "r"(m3)
               : "memory");
#endif
}
// Transposes an 8x8 matrix of 16-bit elements across the registers of a warp.
__device__ inline uint32_t Movmatrix(uint32_t a) {
  uint32_t transposed;
  asm("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(transposed) : "r"(a));
  return transposed;
}
// Stores four 8x8 matrices of 16-bit elements transposed, to the addresses that LdmatrixX4Trans would
// load them from.
__device__ inline void StmatrixX4Trans(uint32_t smem, uint32_t m0, uint32_t m1, uint32_t m2,
                                       uint32_t m3) {
#if __CUDA_ARCH__ >= 900
  asm volatile("stmatrix.sync.aligned.m8n8.x4.trans.shared.b16 [%0], {%1,%2,%3,%4};" ::"r"(smem),
               "r"(m0), "r"(m1), "r"(m2), "r"(m3)
               : "memory");
#else
  const uint32_t matrices[4] = {m0, m1, m2, m3};
  const unsigned lane = threadIdx.x % 32;
  for (unsigned i = 0; i < 4; ++i) {
    const uint32_t row = __shfl_sync(~0u, smem, 8 * i + lane / 4);
    asm volatile("st.shared.u32 [%0], %1;" ::"r"(row + lane % 4 * 4), "r"(Movmatrix(matrices[i]))
                 : "memory");
  }
#endif
}

// d [16, 8] = a [16, 16] b [16, 8] + c.
template <typename T>
__device__ inline void MmaM16N8K16(float (&d)[4], const float (&c)[4], uint32_t a0, uint32_t a1,
                                   uint32_t a2, uint32_t a3, uint32_t b0, uint32_t b1) {
  if constexpr (std::is_same_v<T, Float16>) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
        "{%10,%11,%12,%13};"
        : "=f"(d[0]), "=f"(d[1]), "=f"(d[2]), "=f"(d[3])
        : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1), "f"(c[0]), "f"(c[1]), "f"(c[2]),
          "f"(c[3]));
  } else {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, "
        "{%8,%9}, {%10,%11,%12,%13};"
        : "=f"(d[0]), "=f"(d[1]), "=f"(d[2]), "=f"(d[3])
        : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1), "f"(c[0]), "f"(c[1]), "f"(c[2]),
          "f"(c[3]));
  }
}
// d += a b.
template <typename T>
__device__ inline void MmaM16N8K16(float (&d)[4], uint32_t a0, uint32_t a1, uint32_t a2,
                                   uint32_t a3, uint32_t b0, uint32_t b1) {
  MmaM16N8K16<T>(d, d, a0, a1, a2, a3, b0, b1);
}
// d [16, 8] = a [16, 8] b [8, 8] + c.
template <typename T>
__device__ inline void MmaM16N8K8(float (&d)[4], const float (&c)[4], uint32_t a0, uint32_t a1,
                                  uint32_t b0) {
  if constexpr (std::is_same_v<T, Float16>) {
    asm("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5}, {%6}, "
        "{%7,%8,%9,%10};"
        : "=f"(d[0]), "=f"(d[1]), "=f"(d[2]), "=f"(d[3])
        : "r"(a0), "r"(a1), "r"(b0), "f"(c[0]), "f"(c[1]), "f"(c[2]), "f"(c[3]));
  } else {
    asm("mma.sync.aligned.m16n8k8.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5}, {%6}, "
        "{%7,%8,%9,%10};"
        : "=f"(d[0]), "=f"(d[1]), "=f"(d[2]), "=f"(d[3])
        : "r"(a0), "r"(a1), "r"(b0), "f"(c[0]), "f"(c[1]), "f"(c[2]), "f"(c[3]));
  }
}
template <typename T>
__device__ inline void MmaM16N8K8(float (&d)[4], uint32_t a0, uint32_t a1, uint32_t b0) {
  MmaM16N8K8<T>(d, d, a0, a1, b0);
}

// d [16, 8] = a [16, 8] b [8, 8] + c in TF32: the low 13 bits of the floats are ignored.
__device__ inline void MmaM16N8K8Tf32(float (&d)[4], const float (&c)[4], float a0, float a1,
                                      float a2, float a3, float b0, float b1) {
  asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
      "{%10,%11,%12,%13};"
      : "=f"(d[0]), "=f"(d[1]), "=f"(d[2]), "=f"(d[3])
      : "r"(__float_as_uint(a0)), "r"(__float_as_uint(a1)), "r"(__float_as_uint(a2)),
        "r"(__float_as_uint(a3)), "r"(__float_as_uint(b0)), "r"(__float_as_uint(b1)), "f"(c[0]),
        "f"(c[1]), "f"(c[2]), "f"(c[3]));
}

}  // namespace sasa

#endif  // SASA_EMULATED_GPU

#endif  // SASA_TF_NATIVE_CUDA_PTX_CUH_
