// Launches the forward pass with the projections inside, see mma_projected_forward.cuh.
#include "cuda/mma_projected_forward.cuh"

#include <cuda_runtime.h>

#include "cuda/launch.h"
#include "cuda/mma_launch.cuh"
#include "limits.h"
#include "local_attention.h"

namespace sasa {
namespace {

// {warps, columns, CTAs, staged store, split rows}; and the groups of 8 pixels that are projected at
// a time. Tuned on an H200.
template <int kKernel_>
struct ProjectedConfig {
  static constexpr int kKernel = kKernel_, kHeadDim = kProjectedHeadDim;
  static constexpr int kGroups = kKernel == 5 ? 4 : 2;
  static constexpr MmaTiles kTiles = kKernel == 5 ? MmaTiles{4, 28, 3, false, true} : MmaTiles{4, 28, 4};
};

template <typename Projection, typename Stores>
__global__ void __launch_bounds__(Projection::Traits::kThreads, Projection::Traits::kMinCtasPerSm)
    MmaProjectedForwardKernel(TileGrid g, const Bfloat16* __restrict__ inputs,
                              const Bfloat16* __restrict__ kernel,
                              const float* __restrict__ relative_rows,
                              const float* __restrict__ relative_columns,
                              Bfloat16* __restrict__ output, float* __restrict__ lse) {
  extern __shared__ __align__(1024) char memory[];
  MmaProjectedForwardCta<Projection, Stores>(g, memory, inputs, kernel, relative_rows,
                                             relative_columns, output, lse);
}

template <int kKernel>
void LaunchProjectedForward(const LocalAttentionProblem& p, const ProjectedForwardArrays& a,
                            cudaStream_t stream) {
  using Config = ProjectedConfig<kKernel>;
  using Traits = MmaKernelTraits<Bfloat16, Config>;
  using Projection = ProjectionTraits<Traits, kProjectedChannels, Config::kGroups>;
  const TileGrid g = MakeMmaTileGrid<Traits>(p);
  const auto kernel = a.lse == nullptr ? MmaProjectedForwardKernel<Projection, StoreForInference>
                                       : MmaProjectedForwardKernel<Projection, StoreForTraining>;
  LaunchMmaKernel<Traits>(kernel, Projection::kBytes, g.num_tiles, stream, g,
                          static_cast<const Bfloat16*>(a.inputs),
                          static_cast<const Bfloat16*>(a.kernel), a.relative_rows,
                          a.relative_columns, static_cast<Bfloat16*>(a.output), a.lse);
}

}  // namespace

void MmaProjectedForward(const LocalAttentionProblem& p, const ProjectedForwardArrays& a,
                         cudaStream_t stream) {
  switch (p.kernel_rows) {
    case 3:
      return LaunchProjectedForward<3>(p, a, stream);
    case 5:
      return LaunchProjectedForward<5>(p, a, stream);
    case 7:
      return LaunchProjectedForward<7>(p, a, stream);
  }
}

}  // namespace sasa
