// Launches the forward pass in SIMT arithmetic, see simt_forward.cuh.
#include <cuda_runtime.h>

#include "cuda/kernel_launch.cuh"
#include "cuda/launch.h"
#include "cuda/simt_forward.cuh"
#include "local_attention.h"

namespace sasa {
namespace {

template <typename Traits>
__global__ void __launch_bounds__(Traits::kThreads, Traits::kMinCtasPerSm)
    SimtForwardKernel(SimtGrid g, TypedLoader query, TypedLoader key, TypedLoader value,
                      const float* __restrict__ relative_rows,
                      const float* __restrict__ relative_columns, TypedStorer output,
                      float* __restrict__ lse) {
  extern __shared__ float tables[];
  SimtForwardCta<Traits, true>(g, tables, query, key, value, relative_rows, relative_columns,
                               output, lse);
}

template <typename Traits>
void LaunchForward(const LocalAttentionProblem& p, const ForwardArrays& a, cudaStream_t stream) {
  const auto kernel = SimtForwardKernel<Traits>;
  const SimtLaunchPlan plan = PlanSimtLaunch<Traits>(p);
  const int smem_bytes = RelativeTableBytes<Traits>(plan.grid), tiles = plan.grid.num_tiles;
  const int ctas = PersistentGridSize(kernel, tiles, plan.threads, smem_bytes, tiles);
  LaunchKernel(kernel, ctas, plan.threads, smem_bytes, stream, plan.grid, LoadFrom(p, a.query),
               LoadFrom(p, a.key), LoadFrom(p, a.value), a.relative_rows, a.relative_columns,
               StoreTo(p, a.output), a.lse);
}

}  // namespace

void SimtForward(const LocalAttentionProblem& p, const ForwardArrays& arrays, cudaStream_t stream) {
  DispatchSimtWindow(p, [&](auto head, auto columns) {
    using Config = ForwardConfig<decltype(head), decltype(columns)::value>;
    LaunchForward<SimtKernelTraits<Config>>(p, arrays, stream);
  });
}

}  // namespace sasa
