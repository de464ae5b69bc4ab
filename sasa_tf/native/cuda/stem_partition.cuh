// The stem kernels' partition of images into blocks, and their traits and element loads.
#ifndef SASA_TF_NATIVE_CUDA_STEM_PARTITION_CUH_
#define SASA_TF_NATIVE_CUDA_STEM_PARTITION_CUH_

#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>

#include "cuda/element_types.cuh"
#include "cuda/kernel_launch.cuh"
#include "cuda/mma_fragment.cuh"
#include "cuda/ptx.cuh"
#include "cuda/warp_reduce.cuh"
#include "stem_kernels.h"

namespace sasa::stem {

constexpr int kThreads = 128, kWarps = kThreads / kWarpSize;

// Shape of the blocks and the heads that the tensor core kernels are specialized for.
constexpr int kBlockSide = 4, kPositions = kBlockSide * kBlockSide, kHeadDim = 16;
// Blocks in a strip: neighbors in a row, such that each lane has one column of pixels.
constexpr int kStripBlocks = kWarpSize / kBlockSide;

constexpr int kSliceChannels = 16;  // channels of a head that a thread of the SIMT kernels computes

struct BlockPartition {
  int height, width, heads, head_dim;
  int block_rows, block_columns;
  int grid_rows, grid_columns;  // blocks in an image
  int blocks;                   // in the batch
  int pad_top, pad_left;        // rows and columns of the first block outside the image
  int strips_per_row;
  int strips;  // in the batch
  int slices;  // of kSliceChannels channels in a head
};

inline BlockPartition PartitionIntoBlocks(const StemProblem& p) {
  BlockPartition g = {};
  g.height = p.height;
  g.width = p.width;
  g.heads = p.heads;
  g.head_dim = p.head_dim;
  g.block_rows = p.block_rows;
  g.block_columns = p.block_columns;
  g.grid_rows = CeilDiv(g.height, g.block_rows);
  g.grid_columns = CeilDiv(g.width, g.block_columns);
  g.blocks = static_cast<int>(p.batch) * g.grid_rows * g.grid_columns;
  g.pad_top = (g.grid_rows * g.block_rows - g.height) / 2;
  g.pad_left = (g.grid_columns * g.block_columns - g.width) / 2;
  g.strips_per_row = CeilDiv(g.grid_columns, kStripBlocks);
  g.strips = static_cast<int>(p.batch) * g.grid_rows * g.strips_per_row;
  g.slices = CeilDiv(g.head_dim, kSliceChannels);
  return g;
}

// Elements of the gradients. A worker's partial sums are d_w_v, then d_w_qk.
struct GradientSizes {
  int d_w_v, d_w_qk;
  __host__ __device__ int Total() const { return d_w_v + d_w_qk; }
};

inline GradientSizes CountGradients(const StemProblem& p) {
  return {static_cast<int>(p.block_rows * p.block_columns * p.channels * p.heads * p.head_dim),
          static_cast<int>(p.heads * p.channels * p.channels)};
}

template <typename T_, int kChannels_>
struct StemKernelTraits {
  using T = T_;  // of the pixels and the output
  static constexpr int kChannels = kChannels_;
};

// Calls `launch` with the traits that match the problem's channels.
template <typename T, typename Launch>
void DispatchChannels(const StemProblem& p, Launch launch) {
  if (p.channels == 1) launch(StemKernelTraits<T, 1>());
  if (p.channels == 2) launch(StemKernelTraits<T, 2>());
  if (p.channels == 3) launch(StemKernelTraits<T, 3>());
  if (p.channels == 4) launch(StemKernelTraits<T, 4>());
}

template <typename T>
__device__ inline float LoadFloat(const T* from) {
  return UnpackX2(__ldg(reinterpret_cast<const uint16_t*>(from)), T()).x;
}
__device__ inline float LoadFloat(const float* from) { return __ldg(from); }

// Number of workers. A worker is `thread_blocks_per_worker` thread blocks, each for some of the
// heads or channels, and loops over its share of the `work`.
template <typename Kernel>
int NumWorkers(Kernel kernel, int work, int thread_blocks_per_worker, int smem_bytes, int limit) {
  const int thread_blocks = PersistentGridSize(kernel, INT32_MAX, kThreads, smem_bytes, INT32_MAX);
  return std::max(1, std::min({thread_blocks / thread_blocks_per_worker, work, limit}));
}

}  // namespace sasa::stem

#endif  // SASA_TF_NATIVE_CUDA_STEM_PARTITION_CUH_
