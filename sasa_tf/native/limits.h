// What the kernels support. sasa_tf/native/limits.py parses the constants of this file, so that the
// limits of Python and C++ cannot differ, and tests/native/limits_test.py compares the predicates.
#ifndef SASA_TF_NATIVE_LIMITS_H_
#define SASA_TF_NATIVE_LIMITS_H_

#include <cstdint>

#include "local_attention.h"
#include "projection_kernels.h"
#include "stem_kernels.h"

namespace sasa {

enum class Platform : int32_t { kCpu, kCuda };

// All kernels of local attention.
constexpr int64_t kMaxKernelSize = 11;  // rows and columns of the window
constexpr int64_t kMaxHeadDim = 128;    // also of stem attention

// The CUDA kernels of local attention.
constexpr int64_t kMinCudaKernelColumns = 3;
constexpr int64_t kCudaHeadDimMultiple = 4;

// The CUDA kernels of local attention on the tensor cores: square windows; head_dim is 4, 8, 16, 32
// or 64. docs/kernels.md has a table.
constexpr int64_t kMinTensorCoreKernelSize = 3;
constexpr int64_t kFloat16TensorCoreKernelSize = 7;  // in float16, the only one
constexpr int64_t kMinTensorCoreHeadDim = 4;
constexpr int64_t kMaxTensorCoreHeadDim = 64;
constexpr int64_t kMaxTensorCoreHeads = 1024;
constexpr int64_t kMaxTensorCoreElements = 4294967295;  // of the packed query, key and value
constexpr double kMinTensorCoreScale = 0.01;

// The CUDA kernels for small images, in bfloat16: whole images lie in shared memory.
constexpr int64_t kMaxRowTileKernelSize = 7;
constexpr int64_t kMinRowTileHeadDim = 32;
constexpr int64_t kMaxRowTileSide = 16;  // rows and columns of an image
constexpr int64_t kMaxNarrowRowTileWidth = 8;  // of images whose rows are padded to 8 columns
constexpr int64_t kMinRowForwardImages = 128;  // times heads, for heads 64 wide in wider images

// The CUDA kernel with the projections inside, in bfloat16.
constexpr int64_t kMaxProjectedKernelSize = 7;
constexpr int64_t kProjectedHeadDim = 8;
constexpr int64_t kProjectedChannels = 64;  // of the input
// Two tiles of 28 columns, of which each projects at most 32 with its halo.
constexpr int64_t kProjectedMaxWidth = 57;

// The CUDA backward kernel with the projections inside: windows of 3 and 7, whole rows of an image.
constexpr int64_t kProjectedBackwardMaxWidth = 56;

// One backward kernel is faster than two in images of this many rows and columns or more, if its
// CTAs, one on a multiprocessor, compute whole images of two heads for this part of the time.
// Measured on an H200.
constexpr int64_t kMinOnePassSide = 28;
constexpr double kMinOnePassOccupancy = 0.85;
constexpr double kMinSmallOnePassOccupancy = 0.72;  // with windows of 3 and 5
constexpr int64_t kHopperMultiprocessors = 132;

// The CUDA kernels of the projections' backward pass: one or two slices of the channels.
constexpr int64_t kMaxProjectionChannels = 128;

// Stem attention.
constexpr int64_t kMaxStemPositions = 64;  // pixels in a block

// Offsets within an image, and numbers of pixels and softmaxes, are 32-bit.
constexpr int64_t kMaxInt32 = 2147483647;

static_assert(kMaxTensorCoreHeads <= kTableWorkers, "a worker has a head");

// Whether the CUDA kernels use the tensor cores; otherwise they use SIMT arithmetic.
inline bool UsesTensorCores(const LocalAttentionProblem& p) {
  const bool type_supported =
      p.type == DType::kBfloat16 ||
      (p.type == DType::kFloat16 && p.kernel_rows == kFloat16TensorCoreKernelSize);
  const bool kernel_supported = p.kernel_rows == p.kernel_columns && p.kernel_rows % 2 == 1 &&
                                p.kernel_rows >= kMinTensorCoreKernelSize &&
                                p.kernel_rows <= kMaxKernelSize;
  const bool head_dim_supported = p.head_dim >= kMinTensorCoreHeadDim &&
                                  p.head_dim <= kMaxTensorCoreHeadDim &&
                                  (p.head_dim & (p.head_dim - 1)) == 0;
  // In floating point, where the product cannot overflow.
  const double elements = 1. * p.batch * p.height * p.width * p.qkv_parts * p.heads * p.head_dim;
  return type_supported && kernel_supported && head_dim_supported &&
         p.heads <= kMaxTensorCoreHeads && elements <= kMaxTensorCoreElements &&
         p.scale >= static_cast<float>(kMinTensorCoreScale);
}

// Whether the CUDA kernels for small images support a problem. They need sm_90.
inline bool SupportsRowTiles(const LocalAttentionProblem& p) {
  return UsesTensorCores(p) && p.type == DType::kBfloat16 &&
         p.kernel_rows <= kMaxRowTileKernelSize && p.head_dim >= kMinRowTileHeadDim && p.has_key &&
         p.dilation_rows == 1 && p.dilation_columns == 1 && p.height <= kMaxRowTileSide &&
         p.width <= kMaxRowTileSide;
}

// Whether the forward kernel for small images is faster than the others. Measured on an H200.
inline bool IsRowForwardFaster(const LocalAttentionProblem& p) {
  const bool narrow = p.width <= kMaxNarrowRowTileWidth;
  if (p.head_dim == kMinRowTileHeadDim) return !narrow;
  return narrow || p.batch * p.heads >= kMinRowForwardImages;
}

// Whether the CUDA kernel with the projections inside supports a problem, with `channels` of the
// input.
inline bool SupportsProjections(const LocalAttentionProblem& p, int64_t channels) {
  return UsesTensorCores(p) && p.type == DType::kBfloat16 &&
         p.kernel_rows <= kMaxProjectedKernelSize && p.head_dim == kProjectedHeadDim &&
         channels == kProjectedChannels && p.has_key && p.dilation_rows == 1 &&
         p.dilation_columns == 1 && p.pool_size == 1 &&
         p.width <= kProjectedMaxWidth && p.height * p.width * channels <= kMaxInt32;
}

// Whether the CUDA backward kernel with the projections inside supports a problem. It needs sm_90.
inline bool SupportsProjectedBackward(const LocalAttentionProblem& p, int64_t channels) {
  return SupportsProjections(p, channels) && p.kernel_rows % 4 == 3 &&
         p.width <= kProjectedBackwardMaxWidth;
}

// Whether one backward kernel is faster than two, where `ctas` compute `regions`.
inline bool IsOnePassFaster(const LocalAttentionProblem& p, int64_t regions, int64_t ctas,
                            double min_occupancy) {
  const int64_t turns = (regions + ctas - 1) / ctas;
  return p.height >= kMinOnePassSide && p.width >= kMinOnePassSide &&
         static_cast<double>(regions) >= min_occupancy * static_cast<double>(turns * ctas);
}

// For heads 8 wide.
inline double MinOnePassOccupancy(const LocalAttentionProblem& p) {
  return p.kernel_rows == 7 ? kMinOnePassOccupancy : kMinSmallOnePassOccupancy;
}

// The same for the kernel with the projections inside, on a Hopper GPU.
inline bool IsProjectedBackwardFaster(const LocalAttentionProblem& p) {
  return IsOnePassFaster(p, p.batch * ((p.heads + 1) / 2), kHopperMultiprocessors,
                         MinOnePassOccupancy(p));
}

// Whether the CUDA kernels of the projections' backward pass support a problem, of query, key and
// value with as many channels as the inputs.
inline bool SupportsProjectionBackward(const ProjectionProblem& p) {
  return p.channels >= kProjectionSlice && p.channels <= kMaxProjectionChannels &&
         p.channels % kProjectionSlice == 0 && p.outputs == 3 * p.channels &&
         p.pixels <= kMaxInt32;
}

// Return why the kernels of a platform do not support a problem, or null if they do.
inline const char* UnsupportedReason(const LocalAttentionProblem& p, Platform platform) {
  if (p.kernel_rows % 2 == 0 || p.kernel_columns % 2 == 0) return "the kernel size must be odd";
  if (p.kernel_rows > kMaxKernelSize || p.kernel_columns > kMaxKernelSize) {
    return "the compiled kernels support windows of up to 11 rows and columns";
  }
  if (p.head_dim > kMaxHeadDim) return "the compiled kernels support heads of width up to 128";
  if (WorkspaceFloats(p) > kMaxInt32) {
    return "the compiled kernels support fewer than 2**31 pixels times heads";
  }
  if (platform == Platform::kCpu) return nullptr;
  if (p.head_dim % kCudaHeadDimMultiple != 0) {
    return "the CUDA kernels support heads of a width divisible by 4";
  }
  if (p.kernel_columns < kMinCudaKernelColumns) {
    return "the CUDA kernels support windows of 3 columns or more";
  }
  if (p.height * p.width * p.qkv_parts * p.heads * p.head_dim > kMaxInt32) {
    return "the CUDA kernels support images of fewer than 2**31 elements";
  }
  if (p.pool_size != 1) {
    const bool supported = p.pool_size == 2 && p.height % 2 == 0 && p.width % 2 == 0 &&
                           p.dilation_rows == 1 && p.dilation_columns == 1 && UsesTensorCores(p);
    if (!supported) {
      return "the CUDA kernels support average pooling on the tensor cores only, of size 2, for an "
             "even height and width, without dilation";
    }
  }
  return nullptr;
}

inline const char* UnsupportedReason(const StemProblem& p, Platform platform) {
  if (p.channels < 1 || p.channels > kMaxStemChannels) {
    return "the compiled kernels of stem attention support 1 to 4 input channels";
  }
  if (p.block_rows * p.block_columns > kMaxStemPositions) {
    return "the compiled kernels of stem attention support up to 64 pixels in a block";
  }
  if (p.head_dim > kMaxHeadDim) {
    return "the compiled kernels of stem attention support heads of width up to 128";
  }
  if (platform == Platform::kCpu) return nullptr;
  if (p.height * p.width * p.heads * p.head_dim > kMaxInt32) {
    return "the CUDA kernels of stem attention support images of fewer than 2**31 elements";
  }
  if (p.batch * p.height * p.width > kMaxInt32) {
    return "the CUDA kernels of stem attention support fewer than 2**31 pixels";
  }
  return nullptr;
}

}  // namespace sasa

#endif  // SASA_TF_NATIVE_LIMITS_H_
