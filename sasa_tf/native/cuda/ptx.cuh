// What C++ has no name for: the instructions of NVIDIA GPUs, and the start of a kernel.
//
// With SASA_EMULATED_GPU defined, a header of the tests takes their place, so that the kernels run
// on a processor, one lane after the other.
#ifndef SASA_TF_NATIVE_CUDA_INSTRUCTIONS_CUH_
#define SASA_TF_NATIVE_CUDA_INSTRUCTIONS_CUH_

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstdint>
#include <type_traits>

#ifdef SASA_EMULATED_GPU
#include "emulated_ptx.h"
#else

#include "cuda/kernel_attribute_cache.h"

namespace sasa {

// Starts a kernel in a stream; the arguments are converted to its parameters' types.
template <typename... Parameters, typename... Arguments>
void Enqueue(void (*kernel)(Parameters...), int blocks, int threads, int bytes, cudaStream_t stream,
             Arguments... arguments) {
  // clang-format off: it would take the brackets apart.
  kernel<<<blocks, threads, bytes, stream>>>(static_cast<Parameters>(arguments)...);
  // clang-format on
}

// Whether what runs of a kernel was compiled for sm_90 or later, and so knows what that has.
template <typename Kernel>
bool CompiledForSm90(Kernel kernel) {
  return AskOnce(kernel, 0, 0, [&](int) {
           cudaFuncAttributes code = {};
           cudaFuncGetAttributes(&code, kernel);
           return code.ptxVersion;
         }) >= 90;
}

// Likewise, but the kernel may begin as soon as the thread blocks of the stream's last kernel have
// all ended or called `LetNextKernelBegin`. It calls `WaitForLastKernel` before it touches what
// that one writes. GPUs before sm_90 know nothing of this, nor does code that is compiled for them.
template <typename... Parameters, typename... Arguments>
void EnqueueEarly(void (*kernel)(Parameters...), int blocks, int threads, int bytes,
                  cudaStream_t stream, Arguments... arguments) {
  cudaLaunchAttribute early = {};
  early.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  early.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t launch = {};
  launch.gridDim = dim3(blocks);
  launch.blockDim = dim3(threads);
  launch.dynamicSmemBytes = bytes;
  launch.stream = stream;
  launch.attrs = &early;
  launch.numAttrs = CompiledForSm90(kernel) ? 1 : 0;  // older code would not wait
  cudaLaunchKernelEx(&launch, kernel, static_cast<Parameters>(arguments)...);
}

__device__ inline void LetNextKernelBegin() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}
// Until it has ended and what it wrote can be read.
__device__ inline void WaitForLastKernel() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

// 2 to the x; denormal results are zero.
__device__ inline float Exp2(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// 1 / x to 23 bits, of no denormal.
__device__ inline float Inverse(float x) {
  float y;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// log2 of x, to 22 bits, of no denormal.
__device__ inline float Log2(float x) {
  float y;
  asm("lg2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// Two numbers of T in a word, the first in its lower half.
template <typename T>
__device__ inline uint32_t Pack(float low, float high);
template <>
__device__ inline uint32_t Pack<__half>(float low, float high) {
  uint32_t two;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(two) : "f"(high), "f"(low));
  return two;
}
template <>
__device__ inline uint32_t Pack<__nv_bfloat16>(float low, float high) {
  uint32_t two;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(two) : "f"(high), "f"(low));
  return two;
}

__device__ inline uint32_t SharedAddress(const void* pointer) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(pointer));
}

// Copies 16 bytes, or zeros where there is nothing to copy.
__device__ inline void CopyAsync(uint32_t to, const void* from, bool there) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from),
               "r"(there ? 16 : 0));
}
// Copies 4 bytes likewise.
__device__ inline void CopyWordAsync(uint32_t to, const void* from, bool there) {
  asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(to), "l"(from),
               "r"(there ? 4 : 0));
}
__device__ inline void WaitForCopies() {
  asm volatile("cp.async.commit_group;\ncp.async.wait_group 0;" ::: "memory");
}

// The copies since the last call become a group; waits for all groups but so many, the last ones.
__device__ inline void CommitCopies() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int kGroups>
__device__ inline void WaitForCopiesBut() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kGroups) : "memory");
}

__device__ inline void LoadMatrices(uint32_t from, uint32_t (&to)[4]) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
               : "r"(from));
}
__device__ inline void LoadTransposed(uint32_t from, uint32_t (&to)[4]) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
               : "r"(from));
}
__device__ inline void LoadTwoMatrices(uint32_t from, uint32_t& a, uint32_t& b) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0,%1}, [%2];"
               : "=r"(a), "=r"(b)
               : "r"(from));
}
__device__ inline void LoadTwoTransposed(uint32_t from, uint32_t& a, uint32_t& b) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0,%1}, [%2];"
               : "=r"(a), "=r"(b)
               : "r"(from));
}
__device__ inline uint32_t Transposed(uint32_t a) {
  uint32_t b;
  asm("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(b) : "r"(a));
  return b;
}

// sum [16, 8] = start + a [16, 16] b [16, 8].
template <typename T>
__device__ inline void Multiply16(float (&sum)[4], const float (&start)[4], uint32_t a0,
                                  uint32_t a1, uint32_t a2, uint32_t a3, uint32_t b0, uint32_t b1) {
  if constexpr (std::is_same_v<T, __half>) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
        "{%10,%11,%12,%13};"
        : "=f"(sum[0]), "=f"(sum[1]), "=f"(sum[2]), "=f"(sum[3])
        : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1), "f"(start[0]), "f"(start[1]),
          "f"(start[2]), "f"(start[3]));
  } else {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, "
        "{%8,%9}, {%10,%11,%12,%13};"
        : "=f"(sum[0]), "=f"(sum[1]), "=f"(sum[2]), "=f"(sum[3])
        : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1), "f"(start[0]), "f"(start[1]),
          "f"(start[2]), "f"(start[3]));
  }
}
template <typename T>
__device__ inline void Multiply16(float (&sum)[4], uint32_t a0, uint32_t a1, uint32_t a2,
                                  uint32_t a3, uint32_t b0, uint32_t b1) {
  Multiply16<T>(sum, sum, a0, a1, a2, a3, b0, b1);
}
// sum [16, 8] = start + a [16, 8] b [8, 8].
template <typename T>
__device__ inline void Multiply8(float (&sum)[4], const float (&start)[4], uint32_t a0, uint32_t a1,
                                 uint32_t b0) {
  if constexpr (std::is_same_v<T, __half>) {
    asm("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5}, {%6}, "
        "{%7,%8,%9,%10};"
        : "=f"(sum[0]), "=f"(sum[1]), "=f"(sum[2]), "=f"(sum[3])
        : "r"(a0), "r"(a1), "r"(b0), "f"(start[0]), "f"(start[1]), "f"(start[2]), "f"(start[3]));
  } else {
    asm("mma.sync.aligned.m16n8k8.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5}, {%6}, "
        "{%7,%8,%9,%10};"
        : "=f"(sum[0]), "=f"(sum[1]), "=f"(sum[2]), "=f"(sum[3])
        : "r"(a0), "r"(a1), "r"(b0), "f"(start[0]), "f"(start[1]), "f"(start[2]), "f"(start[3]));
  }
}
template <typename T>
__device__ inline void Multiply8(float (&sum)[4], uint32_t a0, uint32_t a1, uint32_t b0) {
  Multiply8<T>(sum, sum, a0, a1, b0);
}

// sum [16, 8] = start + a [16, 8] b [8, 8], of floats whose last 13 bits are not looked at.
__device__ inline void MultiplyTf32(float (&sum)[4], const float (&start)[4], float a0, float a1,
                                    float a2, float a3, float b0, float b1) {
  asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
      "{%10,%11,%12,%13};"
      : "=f"(sum[0]), "=f"(sum[1]), "=f"(sum[2]), "=f"(sum[3])
      : "r"(__float_as_uint(a0)), "r"(__float_as_uint(a1)), "r"(__float_as_uint(a2)),
        "r"(__float_as_uint(a3)), "r"(__float_as_uint(b0)), "r"(__float_as_uint(b1)), "f"(start[0]),
        "f"(start[1]), "f"(start[2]), "f"(start[3]));
}

}  // namespace sasa

#endif  // SASA_EMULATED_GPU

#endif  // SASA_TF_NATIVE_CUDA_INSTRUCTIONS_CUH_
