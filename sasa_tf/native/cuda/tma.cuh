// TMA (the tensor memory accelerator of sm_90): tensor maps, loads of tiles of an image into shared
// memory, and the mbarrier that signals their arrival.
//
// With SASA_EMULATED_GPU defined, tests/native/emulated_gpu/emulated_tma.h replaces this file.
#ifndef SASA_TF_NATIVE_CUDA_TMA_CUH_
#define SASA_TF_NATIVE_CUDA_TMA_CUH_

#include <cstdint>

namespace sasa {

// Images [B, H, W, channels] of 16-bit elements, and the box that one TMA load copies.
struct TensorMapDesc {
  const void* data;
  int64_t images, height, width, channels;
  int64_t pixel_stride;  // in elements; at least `channels`
  int box_channels, box_columns, box_rows;
};

}  // namespace sasa

#ifdef SASA_EMULATED_GPU
#include "emulated_tma.h"
#else

#include <cuda.h>
#include <cuda_runtime.h>

#include "cuda/ptx.cuh"

// TMA needs CUDA 12 and sm_90. Without it EncodeTensorMap returns false and nothing here is called.
#define SASA_CUDA_HAS_TMA (CUDART_VERSION >= 12000)
#define SASA_ARCH_HAS_TMA (SASA_CUDA_HAS_TMA && __CUDA_ARCH__ >= 900)

namespace sasa {

// A tensor map in a kernel's parameters, which must be `const __grid_constant__`.
struct TensorMap {
#if SASA_CUDA_HAS_TMA
  CUtensorMap map;
#endif

  // Fetches the descriptor ahead of the first load. Called by one thread.
  __device__ void Prefetch() const {
#if SASA_ARCH_HAS_TMA
    asm volatile("prefetch.tensormap [%0];" ::"l"(&map) : "memory");
#endif
  }
};

// Returns false if TMA is not available or does not support these images.
//
// A box of 16, 32 or 64 channels is written to shared memory at a multiple of 128 bytes, row by row
// and pixel by pixel, with the 32, 64 or 128 byte swizzle: with P chunks of 16 bytes in a pixel,
// the chunk for address A is written to A ^ (A / 128 % P * 16).
inline bool EncodeTensorMap(const TensorMapDesc& desc, TensorMap& tensor_map) {
#if SASA_CUDA_HAS_TMA
  using Encode =
      CUresult (*)(CUtensorMap*, CUtensorMapDataType, cuuint32_t, void*, const cuuint64_t*,
                   const cuuint64_t*, const cuuint32_t*, const cuuint32_t*, CUtensorMapInterleave,
                   CUtensorMapSwizzle, CUtensorMapL2promotion, CUtensorMapFloatOOBfill);
  // A function of the driver library, which is not linked.
  static const Encode encode = [] {
    void* function = nullptr;
    cudaDriverEntryPointQueryResult found = cudaDriverEntryPointSymbolNotFound;
#if CUDART_VERSION >= 12050
    cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function, 12000, cudaEnableDefault,
                                     &found);
#else
    cudaGetDriverEntryPoint("cuTensorMapEncodeTiled", &function, cudaEnableDefault, &found);
#endif
    return found == cudaDriverEntryPointSuccess ? reinterpret_cast<Encode>(function) : nullptr;
  }();
  if (encode == nullptr) return false;
  const auto u64 = [](int64_t x) { return static_cast<cuuint64_t>(x); };
  const auto u32 = [](int x) { return static_cast<cuuint32_t>(x); };
  const cuuint64_t sizes[] = {u64(desc.channels), u64(desc.width), u64(desc.height),
                              u64(desc.images)};
  const int64_t pixel_bytes = 2 * desc.pixel_stride;
  const cuuint64_t strides[] = {u64(pixel_bytes), u64(pixel_bytes * desc.width),
                                u64(pixel_bytes * desc.width * desc.height)};
  const cuuint32_t box[] = {u32(desc.box_channels), u32(desc.box_columns), u32(desc.box_rows), 1};
  const cuuint32_t element_strides[] = {1, 1, 1, 1};
  const auto swizzle = desc.box_channels == 16   ? CU_TENSOR_MAP_SWIZZLE_32B
                       : desc.box_channels == 32 ? CU_TENSOR_MAP_SWIZZLE_64B
                                                 : CU_TENSOR_MAP_SWIZZLE_128B;
  return encode(&tensor_map.map, CU_TENSOR_MAP_DATA_TYPE_UINT16, 4, const_cast<void*>(desc.data),
                sizes, strides, box, element_strides, CU_TENSOR_MAP_INTERLEAVE_NONE, swizzle,
                CU_TENSOR_MAP_L2_PROMOTION_L2_128B,
                CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE) == CUDA_SUCCESS;
#else
  return false;
#endif
}

// The mbarrier that the TMA loads of a CTA signal.
class TmaBarrier {
 public:
  static constexpr int kBytes = 8;  // of shared memory

  // Called by all threads; a __syncthreads must follow before the first use.
  __device__ explicit TmaBarrier(void* memory) : mbarrier_(SmemAddress(memory)) {
#if SASA_ARCH_HAS_TMA
    if (threadIdx.x == 0) {
      asm volatile(
          "mbarrier.init.shared::cta.b64 [%0], 1;\nfence.mbarrier_init.release.cluster;" ::"r"(
              mbarrier_)
          : "memory");
    }
#endif
  }
  // Sets how many bytes the next wait is for. Called by the first thread before its loads.
  __device__ void ArriveExpectTx(int bytes) {
#if SASA_ARCH_HAS_TMA
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(mbarrier_),
                 "r"(bytes)
                 : "memory");
#endif
  }
  // Called by all threads; a __syncthreads must follow before the next ArriveExpectTx.
  __device__ void Wait() {
#if SASA_ARCH_HAS_TMA
    asm volatile(
        "{\n.reg .pred done;\nwait:\n"
        "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n@!done bra wait;\n}" ::"r"(
            mbarrier_),
        "r"(phase_)
        : "memory");
    phase_ ^= 1;
#endif
  }
  __device__ uint32_t address() const { return mbarrier_; }

 private:
  uint32_t mbarrier_, phase_ = 0;
};

// An mbarrier whose phases are waited for by parity: the first phase has parity 0. Arriving releases
// what the thread wrote, and waiting acquires it.
class Mbarrier {
 public:
  static constexpr int kBytes = 8;  // of shared memory

  __device__ explicit Mbarrier(uint32_t address) : address_(address) {}

  // Called by one thread; a __syncthreads must follow before the first use. A phase completes with
  // `count` arrivals and the bytes that they expect.
  __device__ void Init(int count) const {
#if SASA_ARCH_HAS_TMA
    asm volatile(
        "mbarrier.init.shared::cta.b64 [%0], %1;\nfence.mbarrier_init.release.cluster;" ::"r"(address_),
        "r"(count)
        : "memory");
#endif
  }
  __device__ void Arrive() const {
#if SASA_ARCH_HAS_TMA
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(address_) : "memory");
#endif
  }
  __device__ void ArriveExpectTx(int bytes) const {
#if SASA_ARCH_HAS_TMA
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(address_),
                 "r"(bytes)
                 : "memory");
#endif
  }
  __device__ void Wait(unsigned parity) const {
#if SASA_ARCH_HAS_TMA
    asm volatile(
        "{\n.reg .pred done;\nwait:\n"
        "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n@!done bra wait;\n}" ::"r"(
            address_),
        "r"(parity)
        : "memory");
#endif
  }
  __device__ uint32_t address() const { return address_; }

 private:
  uint32_t address_;
};

// Loads the box whose first element is at (channel, x, y, image) and fills what lies outside the
// image with zeros. Called by one thread.
template <typename Barrier>
__device__ inline void TmaLoad(const TensorMap& tensor_map, const Barrier& barrier, uint32_t smem,
                               int channel, int x, int y, int image) {
#if SASA_ARCH_HAS_TMA
  asm volatile(
      "cp.async.bulk.tensor.4d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], "
      "[%1, {%2, %3, %4, %5}], [%6];" ::"r"(smem),
      "l"(&tensor_map.map), "r"(channel), "r"(x), "r"(y), "r"(image), "r"(barrier.address())
      : "memory");
#endif
}

// Makes what the thread wrote to shared memory visible to TMA stores; a barrier must follow, before
// another thread starts them.
__device__ inline void TmaStoreFence() {
#if SASA_ARCH_HAS_TMA
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
#endif
}
// Stores the box whose first element is at (channel, x, y, image), except what lies outside the
// image. Called by one thread.
__device__ inline void TmaStore(const TensorMap& tensor_map, uint32_t smem, int channel, int x,
                                int y, int image) {
#if SASA_ARCH_HAS_TMA
  asm volatile(
      "cp.async.bulk.tensor.4d.global.shared::cta.tile.bulk_group [%0, {%1, %2, %3, %4}], [%5];\n"
      "cp.async.bulk.commit_group;" ::"l"(&tensor_map.map),
      "r"(channel), "r"(x), "r"(y), "r"(image), "r"(smem)
      : "memory");
#endif
}
// Waits until the thread's TMA stores have read shared memory.
__device__ inline void TmaStoreWaitRead() {
#if SASA_ARCH_HAS_TMA
  asm volatile("cp.async.bulk.wait_group.read 0;" ::: "memory");
#endif
}

}  // namespace sasa

#endif  // SASA_EMULATED_GPU

#endif  // SASA_TF_NATIVE_CUDA_TMA_CUH_
