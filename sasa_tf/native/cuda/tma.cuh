// TensorMap of pixels, which one instruction copies from an image to shared memory: the tensor memory
// accelerator of sm_90.
//
// With SASA_EMULATED_GPU defined, a header of the tests takes their place.
#ifndef SASA_TF_NATIVE_CUDA_BOXES_CUH_
#define SASA_TF_NATIVE_CUDA_BOXES_CUH_

#include <cstdint>

namespace sasa {

// Images [B, H, W, channels] of 16-bit numbers, and the boxes to be copied from them.
struct TensorMapDesc {
  const void* from;
  int64_t images, height, width, channels;
  int64_t pixel_step;  // in channels; `channels` or more
  int channels_of_box, columns_of_box, rows_of_box;
};

}  // namespace sasa

#ifdef SASA_EMULATED_GPU
#include "emulated_tma.h"
#else

#include <cuda.h>
#include <cuda_runtime.h>

#include "cuda/ptx.cuh"

// What CUDA 12 and sm_90 have; without it `EncodeTensorMap` makes none, and nothing here is called.
#define SASA_CUDA_HAS_BOXES (CUDART_VERSION >= 12000)
#define SASA_CODE_HAS_BOXES (SASA_CUDA_HAS_BOXES && __CUDA_ARCH__ >= 900)

namespace sasa {

// A parameter of kernels, `const __grid_constant__`.
struct TensorMap {
#if SASA_CUDA_HAS_BOXES
  CUtensorMap map;
#endif

  // Lets the first copy begin sooner. By one thread.
  __device__ void Prefetch() const {
#if SASA_CODE_HAS_BOXES
    asm volatile("prefetch.tensormap [%0];" ::"l"(&map) : "memory");
#endif
  }
};

// Returns false where there are no boxes of these images, or none at all. A box of 16, 32 or 64
// channels lies in shared memory from a multiple of 128 bytes on, row by row and pixel by pixel,
// but the 16 bytes that an address A is meant for lie at A ^ (A / 128 % P * 16), P such pieces
// being a pixel.
inline bool EncodeTensorMap(const TensorMapDesc& plan, TensorMap& boxes) {
#if SASA_CUDA_HAS_BOXES
  using Encode =
      CUresult (*)(CUtensorMap*, CUtensorMapDataType, cuuint32_t, void*, const cuuint64_t*,
                   const cuuint64_t*, const cuuint32_t*, const cuuint32_t*, CUtensorMapInterleave,
                   CUtensorMapSwizzle, CUtensorMapL2promotion, CUtensorMapFloatOOBfill);
  // The driver's, which is not linked.
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
  const auto size = [](int64_t x) { return static_cast<cuuint64_t>(x); };
  const auto side = [](int x) { return static_cast<cuuint32_t>(x); };
  const cuuint64_t sizes[] = {size(plan.channels), size(plan.width), size(plan.height),
                              size(plan.images)};
  const int64_t pixel = 2 * plan.pixel_step;
  const cuuint64_t steps[] = {size(pixel), size(pixel * plan.width),
                              size(pixel * plan.width * plan.height)};
  const cuuint32_t box[] = {side(plan.channels_of_box), side(plan.columns_of_box),
                            side(plan.rows_of_box), 1};
  const cuuint32_t every[] = {1, 1, 1, 1};
  const auto exchange = plan.channels_of_box == 16   ? CU_TENSOR_MAP_SWIZZLE_32B
                        : plan.channels_of_box == 32 ? CU_TENSOR_MAP_SWIZZLE_64B
                                                     : CU_TENSOR_MAP_SWIZZLE_128B;
  return encode(&boxes.map, CU_TENSOR_MAP_DATA_TYPE_UINT16, 4, const_cast<void*>(plan.from), sizes,
                steps, box, every, CU_TENSOR_MAP_INTERLEAVE_NONE, exchange,
                CU_TENSOR_MAP_L2_PROMOTION_L2_128B,
                CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE) == CUDA_SUCCESS;
#else
  return false;
#endif
}

// Copies of boxes that a thread block waits for.
class TmaBarrier {
 public:
  static constexpr int kBytes = 8;  // of shared memory

  // By all threads, before a barrier of the thread block.
  __device__ explicit TmaBarrier(void* memory) : barrier_(SmemAddress(memory)) {
#if SASA_CODE_HAS_BOXES
    if (threadIdx.x == 0) {
      asm volatile(
          "mbarrier.init.shared::cta.b64 [%0], 1;\nfence.mbarrier_init.release.cluster;" ::"r"(
              barrier_)
          : "memory");
    }
#endif
  }
  // By the first thread, once between two waits: how many bytes it is about to copy.
  __device__ void Expect(int bytes) {
#if SASA_CODE_HAS_BOXES
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier_),
                 "r"(bytes)
                 : "memory");
#endif
  }
  // By the first thread: the box that begins with this channel and pixel, with zeros for what is
  // beyond the image.
  __device__ void Copy(const TensorMap& boxes, int channel, int x, int y, int image, uint32_t to) {
#if SASA_CODE_HAS_BOXES
    asm volatile(
        "cp.async.bulk.tensor.4d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], "
        "[%1, {%2, %3, %4, %5}], [%6];" ::"r"(to),
        "l"(&boxes.map), "r"(channel), "r"(x), "r"(y), "r"(image), "r"(barrier_)
        : "memory");
#endif
  }
  // By all threads, and a barrier of the thread block afterwards.
  __device__ void Wait() {
#if SASA_CODE_HAS_BOXES
    asm volatile(
        "{\n.reg .pred there;\nuntil:\n"
        "mbarrier.try_wait.parity.shared::cta.b64 there, [%0], %1;\n@!there bra until;\n}" ::"r"(
            barrier_),
        "r"(phase_)
        : "memory");
    phase_ ^= 1;
#endif
  }

 private:
  uint32_t barrier_, phase_ = 0;
};

}  // namespace sasa

#endif  // SASA_EMULATED_GPU

#endif  // SASA_TF_NATIVE_CUDA_BOXES_CUH_
