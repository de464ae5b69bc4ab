// Warpgroup matrix instructions of sm_90a (wgmma): asynchronous products of bfloat16 matrices in
// shared memory, and the descriptors of these matrices. A warpgroup is four warps; the index of the
// first is a multiple of four.
//
// With SASA_EMULATED_GPU defined, tests/native/emulated_gpu/emulated_wgmma.h replaces the
// instructions.
#ifndef SASA_TF_NATIVE_CUDA_WGMMA_CUH_
#define SASA_TF_NATIVE_CUDA_WGMMA_CUH_

#include <cuda_runtime.h>

#include <cstdint>

#include "cuda/ptx.cuh"

namespace sasa {

constexpr int kWarpgroupSize = 128;

// A matrix of 16-bit elements in shared memory: panels of rows of 64 elements, as TMA writes them
// with the 128 byte swizzle. A panel is aligned to 1024 bytes.
struct WgmmaPanel {
  static constexpr int kRowBytes = 128, kColumns = kRowBytes / 2;
  static constexpr int kEightRows = 8 * kRowBytes;

  // The rows are M or N of a product, and its K the columns. Of the 16 columns from `column` on.
  __device__ static uint64_t KMajor(uint32_t panel, int column) {
    return Descriptor(panel + 2 * column, 16);
  }
  // The columns are M or N, in panels `panel_bytes` apart, and the rows K. Of the 16 rows from
  // `row` on, which is a multiple of 8.
  __device__ static uint64_t MnMajor(uint32_t panel, int row, int panel_bytes) {
    return Descriptor(panel + row * kRowBytes, panel_bytes);
  }

 private:
  // The fields of the PTX ISA's matrix descriptor: start address, leading dimension byte offset,
  // stride dimension byte offset, and swizzle mode.
  __device__ static uint64_t Descriptor(uint32_t address, int leading_bytes) {
    return static_cast<uint64_t>((address & 0x3ffff) >> 4) |
           static_cast<uint64_t>(leading_bytes >> 4) << 16 |
           static_cast<uint64_t>(kEightRows >> 4) << 32 | uint64_t{1} << 62;
  }
};

}  // namespace sasa

#ifdef SASA_EMULATED_GPU
#include "emulated_wgmma.h"
#else

// The instructions exist in code for sm_90a only.
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
#define SASA_ARCH_HAS_WGMMA 1
#else
#define SASA_ARCH_HAS_WGMMA 0
#endif

namespace sasa {

// Must precede the first product, and any product after other instructions wrote its accumulator.
__device__ inline void WgmmaFence() {
#if SASA_ARCH_HAS_WGMMA
  asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
#endif
}
__device__ inline void WgmmaCommitGroup() {
#if SASA_ARCH_HAS_WGMMA
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
#endif
}
// Waits until at most kGroups of the most recent groups are pending, and then uses the accumulator
// `acc` of one that is complete.
template <int kGroups, int kSize>
__device__ inline void WgmmaWaitGroup(float (&acc)[kSize]) {
#if SASA_ARCH_HAS_WGMMA
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kGroups) : "memory");
  // So that no use moves before the wait.
#pragma unroll
  for (int i = 0; i < kSize; ++i) asm volatile("" : "+f"(acc[i])::"memory");
#endif
}

// Makes what the thread wrote to shared memory visible to TMA and wgmma.
__device__ inline void FenceProxyAsync() {
#if SASA_ARCH_HAS_WGMMA
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
#endif
}

#define SASA_ACC4(i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3])
#define SASA_ACC16(i) SASA_ACC4(i), SASA_ACC4(i + 4), SASA_ACC4(i + 8), SASA_ACC4(i + 12)

// d [64, 64] = a [64, 16] b [16, 64], added to d if `accumulate`. Warp w of the warpgroup has rows
// 16 w to 16 w + 15; d[4 j] to d[4 j + 3] are the accumulator fragment of mma.m16n8k16 for columns
// 8 j to 8 j + 7. kTransA, kTransB: 1 if the descriptor is of an MN-major matrix, else 0.
template <int kTransA, int kTransB>
__device__ inline void WgmmaM64N64K16(float (&d)[32], uint64_t a, uint64_t b, bool accumulate) {
#if SASA_ARCH_HAS_WGMMA
  asm volatile(
      "{\n.reg .pred accumulate;\nsetp.ne.b32 accumulate, %34, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 "
      "{%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,"
      "%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31}, "
      "%32, %33, accumulate, 1, 1, %35, %36;\n}"
      : SASA_ACC16(0), SASA_ACC16(16)
      : "l"(a), "l"(b), "r"(static_cast<int>(accumulate)), "n"(kTransA), "n"(kTransB));
#endif
}
// The same for d [64, 192].
template <int kTransA, int kTransB>
__device__ inline void WgmmaM64N192K16(float (&d)[96], uint64_t a, uint64_t b, bool accumulate) {
#if SASA_ARCH_HAS_WGMMA
  asm volatile(
      "{\n.reg .pred accumulate;\nsetp.ne.b32 accumulate, %98, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n192k16.f32.bf16.bf16 "
      "{%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,"
      "%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31,"
      "%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47,"
      "%48,%49,%50,%51,%52,%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,%63,"
      "%64,%65,%66,%67,%68,%69,%70,%71,%72,%73,%74,%75,%76,%77,%78,%79,"
      "%80,%81,%82,%83,%84,%85,%86,%87,%88,%89,%90,%91,%92,%93,%94,%95}, "
      "%96, %97, accumulate, 1, 1, %99, %100;\n}"
      : SASA_ACC16(0), SASA_ACC16(16), SASA_ACC16(32), SASA_ACC16(48),
        SASA_ACC16(64), SASA_ACC16(80)
      : "l"(a), "l"(b), "r"(static_cast<int>(accumulate)), "n"(kTransA), "n"(kTransB));
#endif
}

#undef SASA_ACC16
#undef SASA_ACC4

}  // namespace sasa

#endif  // SASA_EMULATED_GPU

#endif  // SASA_TF_NATIVE_CUDA_WGMMA_CUH_
