// Launches the backward pass in one kernel with the projections inside, see
// mma_projected_backward.cuh.
#include "cuda/mma_projected_backward.cuh"

#include <cuda_runtime.h>

#include "cuda/kernel_attributes.h"
#include "cuda/launch.h"
#include "cuda/mma_launch.cuh"
#include "cuda/table_reduction.cuh"
#include "limits.h"
#include "local_attention.h"

namespace sasa {
namespace {

// The arrays are separate parameters, as nvcc ignores __restrict__ on the members of a struct.
template <typename Source>
__global__ void __launch_bounds__(Source::Traits::kThreads, Source::Traits::kMinCtasPerSm)
    MmaProjectedBackwardKernel(TileGrid g, RegionGrid regions, const Bfloat16* __restrict__ inputs,
                               const Bfloat16* __restrict__ kernel,
                               const float* __restrict__ relative_rows,
                               const float* __restrict__ relative_columns,
                               const Bfloat16* __restrict__ output, const float* __restrict__ lse,
                               const Bfloat16* __restrict__ d_output,
                               Bfloat16* __restrict__ d_query, Bfloat16* __restrict__ d_key,
                               Bfloat16* __restrict__ d_value, float* __restrict__ table_partials) {
  extern __shared__ __align__(1024) char memory[];
  const Source source = {g,      regions, inputs, kernel,
                         memory, SmemAddress(memory) + OnePassSmemLayout<Source>::kSourceBarriers};
  MmaBackwardOnePassCta(g, regions, memory, source, relative_rows, relative_columns, output, lse,
                        d_output, d_query, d_key, d_value, table_partials);
}

// Returns false if the GPU has no such kernel.
template <typename Source>
bool LaunchProjectedBackward(const LocalAttentionProblem& p, const ProjectedBackwardArrays& a,
                             cudaStream_t stream) {
  using Traits = typename Source::Traits;
  constexpr int kBytes = OnePassSmemLayout<Source>::kBytes;
  const auto kernel = MmaProjectedBackwardKernel<Source>;
  if (!CompiledForSm90(reinterpret_cast<const void*>(kernel)) || MaxSmemBytes() < kBytes) {
    return false;
  }
  const TileGrid g = MakeMmaTileGrid<Traits>(p);
  const RegionGrid regions = MakeRegionGrid<Traits>(p);
  // All regions of a CTA are of the same heads.
  const int ctas = RoundToHeadGroups(
      g, PersistentGridSize(kernel, regions.num_regions, Traits::kThreads, kBytes, kTableWorkers));
  auto* const d_packed = static_cast<Bfloat16*>(a.d_qkv);
  const int64_t part = p.heads * p.head_dim;
  LaunchPdl(kernel, ctas, Traits::kThreads, kBytes, stream, g, regions,
            static_cast<const Bfloat16*>(a.inputs), static_cast<const Bfloat16*>(a.kernel),
            a.relative_rows, a.relative_columns, static_cast<const Bfloat16*>(a.output), a.lse,
            static_cast<const Bfloat16*>(a.d_output), d_packed, d_packed + part,
            d_packed + 2 * part, TablePartials(p, a.workspace));
  LaunchTableReduction(MakeTableReduction(p, a.workspace, ctas, g.scale, a.d_relative_rows,
                                          a.d_relative_columns),
                       stream);
  return true;
}

// The tiles: {warps, columns, CTAs}, as without the projections; and the parameters of
// ProjectedSource. Tuned on an H200.
template <int kKernel_>
struct ProjectedBackwardConfig {
  static constexpr int kKernel = kKernel_, kHeadDim = kProjectedHeadDim;
  static constexpr MmaTiles kTiles = {kKernel == 3 ? 12 : 8, 56, 1};
  static constexpr int kProjectedTiles = 4, kAhead = kKernel == 3 ? 0 : 1;
};

template <int kKernel, typename Config = ProjectedBackwardConfig<kKernel>>
using SourceOf = ProjectedSource<ProjectedBackwardTraits<Bfloat16, Config>, kProjectedChannels,
                                 Config::kProjectedTiles, Config::kAhead>;

}  // namespace

bool MmaProjectedBackward(const LocalAttentionProblem& p, const ProjectedBackwardArrays& arrays,
                          cudaStream_t stream) {
  switch (p.kernel_rows) {
    case 3:
      return LaunchProjectedBackward<SourceOf<3>>(p, arrays, stream);
    case 7:
      return LaunchProjectedBackward<SourceOf<7>>(p, arrays, stream);
  }
  return false;
}

}  // namespace sasa
