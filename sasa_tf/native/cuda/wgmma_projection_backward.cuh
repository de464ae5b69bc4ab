// The gradients of projections y = x w with wgmma: dx = dy w^T and dw = x^T dy, in one pass over x
// and dy. x [pixels, C], w [C, F] and dy [pixels, F] with F = 3 C, C = 64 or 128, are bfloat16.
//
// A persistent CTA computes 64 channels (a slice) of dx, and partial sums of the same rows of dw,
// which stay in the accumulators of its warpgroups until its last tile. One thread loads tiles of
// 64 pixels of x and dy by TMA to stages of shared memory, from which warpgroups compute. With 128
// channels, two warpgroups share a tile, each with half of the columns of dw, and compute dx
// alternately. A second kernel adds the partial sums in a fixed order.
#ifndef SASA_TF_NATIVE_CUDA_WGMMA_PROJECTION_BACKWARD_CUH_
#define SASA_TF_NATIVE_CUDA_WGMMA_PROJECTION_BACKWARD_CUH_

#include <cuda_runtime.h>

#include <cstdint>

#include "cuda/half_types.h"
#include "cuda/mma_fragment.cuh"
#include "cuda/ptx.cuh"
#include "cuda/tma.cuh"
#include "cuda/wgmma.cuh"
#include "projection_kernels.h"

namespace sasa {
namespace {

template <int kChannels_, int kStages_>
struct ProjectionBackwardTraits {
  static constexpr int kChannels = kChannels_, kOutputs = 3 * kChannels, kStages = kStages_;
  static constexpr int kGroups = 2;                                      // warpgroups that compute
  static constexpr int kThreads = kGroups * kWarpgroupSize + kWarpSize;  // and a warp that loads

  static constexpr int kPixels = 64;  // of a tile
  static constexpr int kSlice = kProjectionSlice, kSlices = kChannels / kSlice;
  // The warpgroups that share a tile, and the columns of dw of each.
  static constexpr int kShareOutputs = 192, kShares = kOutputs / kShareOutputs;
  static constexpr int kTilesAtATime = kGroups / kShares;

  // Panels of shared memory: of w, then for each stage of x and of dy.
  static constexpr int kPanelBytes = kPixels * WgmmaPanel::kRowBytes;
  static constexpr int kPanels = kOutputs / WgmmaPanel::kColumns;  // of dy
  static constexpr int kSharePanels = kShareOutputs / WgmmaPanel::kColumns;
  static constexpr int kStageBytes = (1 + kPanels) * kPanelBytes;
  static constexpr int kFirstStage = kPanels * kPanelBytes;
  static constexpr int kBarriers = kFirstStage + kStages * kStageBytes;
  static constexpr int kBytes = kBarriers + 2 * kStages * Mbarrier::kBytes;
  // A stage is used by the same warpgroups each time. Others would miss one of its phases, and take
  // the next for complete.
  static_assert(kStages % kTilesAtATime == 0);
  static_assert(kPixels == kSlice && kSlice == WgmmaPanel::kColumns &&
                kShares * kShareOutputs == kOutputs && kShares <= kGroups);

  // dw of a warpgroup, as float4s: fragments of 8 columns, of each thread.
  static constexpr int kFragments = kShareOutputs / 8;
  static constexpr int kShareFloat4s = kFragments * kWarpgroupSize;
  // dw of all slices.
  static constexpr int kFloat4s = kSlices * kShares * kShareFloat4s;
  static_assert(kShareFloat4s * 16 <= kStages * kStageBytes);
};

struct ProjectionTensorMaps {
  TensorMap inputs, d_outputs;
};

// The warp's index, which the compiler then knows to be equal for its lanes. Otherwise it
// serializes wgmma instructions in branches.
__device__ inline int UniformWarp() {
  return __shfl_sync(kFullMask, static_cast<int>(threadIdx.x) / kWarpSize, 0);
}

// The channel of a slice that column n of the product dx is. A lane's columns 8 j + 2 pair and the
// next, for four consecutive j, are 8 consecutive channels.
__device__ inline int ChannelOfColumn(int n) {
  return n / 32 * 32 + n / 2 % 4 * 8 + n / 8 % 4 * 2 + n % 2;
}

// Copies the rows of w of a slice to shared memory, in the order of the columns of dx.
template <typename Traits>
__device__ inline void FillProjectionKernel(const Bfloat16* __restrict__ kernel, char* memory) {
  constexpr int kRowChunks = Traits::kOutputs / 8;
  for (int i = threadIdx.x; i < Traits::kSlice * kRowChunks; i += Traits::kThreads) {
    const int n = i / kRowChunks, chunk = i % kRowChunks;
    const uint4 bits = __ldg(reinterpret_cast<const uint4*>(
        kernel + ChannelOfColumn(n) * Traits::kOutputs + chunk * 8));
    char* row = memory + chunk / 8 * Traits::kPanelBytes + n * WgmmaPanel::kRowBytes;
    *reinterpret_cast<uint4*>(row + (chunk ^ n) % 8 * 16) = bits;
  }
  FenceProxyAsync();
}

// The barriers of the stages: TMA loads complete `full`, and warps that have used a stage `empty`.
template <typename Traits>
struct ProjectionStages {
  uint32_t smem;
  int index = 0;
  unsigned phase = 0;

  __device__ explicit ProjectionStages(uint32_t smem) : smem(smem) {}
  __device__ Mbarrier Full() const {
    return Mbarrier(smem + Traits::kBarriers + index * Mbarrier::kBytes);
  }
  __device__ Mbarrier Empty() const {
    return Mbarrier(smem + Traits::kBarriers + (Traits::kStages + index) * Mbarrier::kBytes);
  }
  __device__ uint32_t Inputs() const {
    return smem + Traits::kFirstStage + index * Traits::kStageBytes;
  }
  __device__ uint32_t DOutputs() const { return Inputs() + Traits::kPanelBytes; }
  __device__ void Advance() {
    if (++index < Traits::kStages) return;
    index = 0;
    phase ^= 1;
  }
};

// The tiles of a CTA: every step-th from the last to the first, because the last of dy, which the
// previous kernel has just written, may still be in the L2 cache.
template <typename Traits>
struct ProjectionTiles {
  int slice, last, step;

  __device__ explicit ProjectionTiles(int pixels) {
    slice = blockIdx.x % Traits::kSlices;
    last = (pixels - 1) / Traits::kPixels - static_cast<int>(blockIdx.x) / Traits::kSlices;
    step = gridDim.x / Traits::kSlices;
  }
};

// The thread that loads tiles.
template <typename Traits>
struct ProjectionLoader {
  const ProjectionTensorMaps& maps;
  const ProjectionTiles<Traits>& tiles;
  ProjectionStages<Traits> stages;
  int tile = tiles.last;

  // Loads the first tiles, to stages that nothing has used.
  __device__ void Start() {
    for (int i = 0; i < Traits::kStages && tile >= 0; ++i) Load();
  }
  __device__ void LoadOthers() {
    while (tile >= 0) {
      stages.Empty().Wait(stages.phase ^ 1);
      Load();
    }
  }

 private:
  __device__ void Load() {
    const Mbarrier full = stages.Full();
    full.ArriveExpectTx(Traits::kStageBytes);
    const int pixel = tile * Traits::kPixels;
    TmaLoad(maps.inputs, full, stages.Inputs(), tiles.slice * Traits::kSlice, pixel, 0, 0);
    for (int panel = 0; panel < Traits::kPanels; ++panel) {
      TmaLoad(maps.d_outputs, full, stages.DOutputs() + panel * Traits::kPanelBytes,
              panel * WgmmaPanel::kColumns, pixel, 0, 0);
    }
    tile -= tiles.step;
    stages.Advance();
  }
};

// Starts dx [64 pixels, 64 channels] = dy w^T.
template <typename Traits>
__device__ inline void StartInputGradient(uint32_t kernel, uint32_t d_outputs, float (&dx)[32]) {
#pragma unroll
  for (int panel = 0; panel < Traits::kPanels; ++panel) {
#pragma unroll
    for (int k = 0; k < WgmmaPanel::kColumns; k += 16) {
      const int offset = panel * Traits::kPanelBytes;
      WgmmaM64N64K16<0, 0>(dx, WgmmaPanel::KMajor(d_outputs + offset, k),
                           WgmmaPanel::KMajor(kernel + offset, k), panel + k > 0);
    }
  }
}

// Starts dw [64 channels, 192 outputs] += x^T dy.
template <typename Traits>
__device__ inline void StartKernelGradient(uint32_t inputs, uint32_t d_outputs, float (&dw)[96]) {
#pragma unroll
  for (int k = 0; k < Traits::kPixels; k += 16) {
    WgmmaM64N192K16<1, 1>(dw, WgmmaPanel::MnMajor(inputs, k, Traits::kPanelBytes),
                          WgmmaPanel::MnMajor(d_outputs, k, Traits::kPanelBytes), true);
  }
}

// Rounds dx of a tile and stores it. `to`: the lane's first pixel and channel.
template <typename Traits>
__device__ inline void StoreInputGradient(const float (&dx)[32], Bfloat16* to, int pixels_left) {
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    if (8 * half >= pixels_left) continue;
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      uint32_t words[4];
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const float* two = dx + (4 * i + j) * 4 + 2 * half;
        words[j] = PackX2<Bfloat16>(two[0], two[1]);
      }
      *reinterpret_cast<uint4*>(to + 8 * half * Traits::kChannels + 32 * i) =
          make_uint4(words[0], words[1], words[2], words[3]);
    }
  }
}

__device__ inline float4 Add(const float4& a, const float4& b) {
  return make_float4(a.x + b.x, a.y + b.y, a.z + b.z, a.w + b.w);
}

__device__ inline float4 Float4At(const float (&dw)[96], int i) {
  return make_float4(dw[4 * i], dw[4 * i + 1], dw[4 * i + 2], dw[4 * i + 3]);
}

// Computes the tiles of a warpgroup, and leaves dw in the accumulator.
template <typename Traits>
__device__ __forceinline__ void ComputeProjectionTiles(const ProjectionTiles<Traits>& tiles,
                                                       ProjectionStages<Traits> stages, int pixels,
                                                       Bfloat16* __restrict__ d_inputs,
                                                       float (&dw)[96]) {
  const MmaLane lane;
  const int warp = UniformWarp(), group = warp / 4;
  const int share = group % Traits::kShares, turn = group / Traits::kShares;
  const int first_pixel = warp % 4 * 16 + lane.row;
  Bfloat16* to = d_inputs + static_cast<int64_t>(first_pixel) * Traits::kChannels +
                 tiles.slice * Traits::kSlice + lane.pair * 8;
  float dx[32];
  int i = 0;
  for (int tile = tiles.last; tile >= 0; tile -= tiles.step, stages.Advance(), ++i) {
    if (i % Traits::kTilesAtATime != turn) continue;
    const bool computes_dx = i / Traits::kTilesAtATime % Traits::kShares == share;
    const uint32_t share_outputs =
        stages.DOutputs() + share * Traits::kSharePanels * Traits::kPanelBytes;
    stages.Full().Wait(stages.phase);
    if (computes_dx) {
      WgmmaFence();
      StartInputGradient<Traits>(stages.smem, stages.DOutputs(), dx);
      WgmmaCommitGroup();
      StartKernelGradient<Traits>(stages.Inputs(), share_outputs, dw);
      WgmmaCommitGroup();
      WgmmaWaitGroup<1>(dx);
      const int64_t pixel = static_cast<int64_t>(tile) * Traits::kPixels;
      StoreInputGradient<Traits>(dx, to + pixel * Traits::kChannels,
                                 static_cast<int>(pixels - pixel) - first_pixel);
      WgmmaWaitGroup<0>(dw);
    } else {
      WgmmaFence();
      StartKernelGradient<Traits>(stages.Inputs(), share_outputs, dw);
      WgmmaCommitGroup();
      WgmmaWaitGroup<0>(dw);
    }
    if (lane.id == 0) stages.Empty().Arrive();
  }
}

// maps: of `inputs` and `d_outputs`. partials: [CTAs / kSlices][kFloat4s].
template <typename Traits>
__global__ void __launch_bounds__(Traits::kThreads)
    ProjectionBackwardKernel(const __grid_constant__ ProjectionTensorMaps maps, int pixels,
                             const Bfloat16* __restrict__ kernel, Bfloat16* __restrict__ d_inputs,
                             float4* __restrict__ partials) {
  extern __shared__ __align__(1024) char memory[];
  const int group = UniformWarp() / 4;
  const int thread = threadIdx.x % kWarpgroupSize;
  const bool computes = group < Traits::kGroups;
  const bool loads = threadIdx.x == Traits::kGroups * kWarpgroupSize;
  const ProjectionTiles<Traits> tiles(pixels);
  const ProjectionStages<Traits> stages(SmemAddress(memory));
  ProjectionLoader<Traits> loader{maps, tiles, stages};
  if (loads) {
    maps.inputs.Prefetch();
    maps.d_outputs.Prefetch();
    ProjectionStages<Traits> stage = stages;
    for (int i = 0; i < Traits::kStages; ++i, stage.Advance()) {
      stage.Full().Init(1);
      stage.Empty().Init(4 * Traits::kShares);
    }
  }
  GridDependencyWait();  // the previous kernel may have written any of the arguments
  if (loads) loader.Start();
  FillProjectionKernel<Traits>(kernel + tiles.slice * Traits::kSlice * Traits::kOutputs, memory);
  __syncthreads();

  float dw[96] = {};
  if (computes) {
    ComputeProjectionTiles<Traits>(tiles, stages, pixels, d_inputs, dw);
  } else if (loads) {
    loader.LoadOthers();
  }
  GridLaunchDependents();

  if constexpr (Traits::kShares == 1) {
    // Add dw of the second warpgroup, which took other tiles, to that of the first.
    float4* sums = reinterpret_cast<float4*>(memory + Traits::kFirstStage) + thread;
    __syncthreads();
    if (group == 1) {
#pragma unroll
      for (int i = 0; i < Traits::kFragments; ++i) sums[i * kWarpgroupSize] = Float4At(dw, i);
    }
    __syncthreads();
    if (group > 0) return;
#pragma unroll
    for (int i = 0; i < Traits::kFragments; ++i) {
      const float4 sum = Add(Float4At(dw, i), sums[i * kWarpgroupSize]);
      dw[4 * i] = sum.x, dw[4 * i + 1] = sum.y, dw[4 * i + 2] = sum.z, dw[4 * i + 3] = sum.w;
    }
  } else if (!computes) {
    return;
  }
  partials += (blockIdx.x * Traits::kShares + group) * Traits::kShareFloat4s + thread;
#pragma unroll
  for (int i = 0; i < Traits::kFragments; ++i) partials[i * kWarpgroupSize] = Float4At(dw, i);
}

// Adds the partial sums of `workers` CTAs of each slice: each row of threads those of every
// kRows-th worker, and then the first row those of the rows.
template <typename Traits>
struct ProjectionReduction {
  static constexpr int kColumns = 32, kRows = 8, kThreads = kColumns * kRows;
  static constexpr int kCtas = Traits::kFloat4s / kColumns;
};
template <typename Traits>
__global__ void __launch_bounds__(ProjectionReduction<Traits>::kThreads)
    ReduceProjectionKernel(const float4* __restrict__ partials, int workers,
                           Bfloat16* __restrict__ d_kernel) {
  using Reduction = ProjectionReduction<Traits>;
  __shared__ float4 sums[Reduction::kRows][Reduction::kColumns];
  const int column = threadIdx.x % Reduction::kColumns, row = threadIdx.x / Reduction::kColumns;
  const int index = blockIdx.x * Reduction::kColumns + column;
  GridDependencyWait();
  float4 sum = make_float4(0.f, 0.f, 0.f, 0.f);
#pragma unroll 8
  for (int worker = row; worker < workers; worker += Reduction::kRows) {
    sum = Add(sum, partials[static_cast<int64_t>(worker) * Traits::kFloat4s + index]);
  }
  sums[row][column] = sum;
  __syncthreads();
  if (row > 0) return;
  for (int i = 1; i < Reduction::kRows; ++i) sum = Add(sum, sums[i][column]);
  // The element's place in dw, from the fragments of wgmma.
  const int thread = index % kWarpgroupSize, share = index / Traits::kShareFloat4s;
  const int fragment = index / kWarpgroupSize % Traits::kFragments;
  const int channel = share / Traits::kShares * Traits::kSlice + thread / kWarpSize * 16 +
                      thread % kWarpSize / 4;
  const int output =
      share % Traits::kShares * Traits::kShareOutputs + fragment * 8 + thread % 4 * 2;
  uint32_t* to = reinterpret_cast<uint32_t*>(d_kernel + channel * Traits::kOutputs + output);
  to[0] = PackX2<Bfloat16>(sum.x, sum.y);
  to[4 * Traits::kOutputs] = PackX2<Bfloat16>(sum.z, sum.w);
}

}  // namespace
}  // namespace sasa

#endif  // SASA_TF_NATIVE_CUDA_WGMMA_PROJECTION_BACKWARD_CUH_
