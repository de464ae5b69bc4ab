// Launches the forward pass with the projections inside, see mma_projected_forward.cuh.
#include "cuda/mma_projected_forward.cuh"

#include <cuda_runtime.h>

#include "cuda/launch.h"
#include "cuda/mma_launch.cuh"
#include "limits.h"
#include "local_attention.h"

namespace sasa {
namespace {

struct ProjectedConfig {
  static constexpr int kKernel = kProjectedKernelSize, kHeadDim = kProjectedHeadDim;
  static constexpr MmaTiles kTiles = {4, 28, 4};
};
using Projection =
    ProjectionTraits<MmaKernelTraits<Bfloat16, ProjectedConfig>, kProjectedChannels>;

template <typename Stores>
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

}  // namespace

void MmaProjectedForward(const LocalAttentionProblem& p, const ProjectedForwardArrays& a,
                         cudaStream_t stream) {
  const TileGrid g = MakeMmaTileGrid<Projection::Traits>(p);
  const auto kernel = a.lse == nullptr ? MmaProjectedForwardKernel<StoreForInference>
                                       : MmaProjectedForwardKernel<StoreForTraining>;
  LaunchMmaKernel<Projection::Traits>(kernel, Projection::kBytes, g.num_tiles, stream, g,
                                      static_cast<const Bfloat16*>(a.inputs),
                                      static_cast<const Bfloat16*>(a.kernel), a.relative_rows,
                                      a.relative_columns, static_cast<Bfloat16*>(a.output), a.lse);
}

}  // namespace sasa
