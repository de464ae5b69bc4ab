// Launches the tensor core kernels.
#ifndef SASA_TF_NATIVE_CUDA_MMA_LAUNCH_CUH_
#define SASA_TF_NATIVE_CUDA_MMA_LAUNCH_CUH_

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include "cuda/kernel_launch.cuh"
#include "cuda/tile_scheduler.cuh"
#include "local_attention.h"

namespace sasa {
namespace {

template <typename Traits>
TileGrid MakeMmaTileGrid(const LocalAttentionProblem& p) {
  return MakeTileGrid(p, Traits::kTileRows, Traits::kTileColumns, Traits::kTileHeads);
}

// Launches a persistent kernel with PDL and returns the number of CTAs, which is at most `max_ctas`
// rounded to the head groups.
template <typename Traits, typename... Parameters, typename... Arguments>
int LaunchMmaKernel(void (*kernel)(TileGrid, Parameters...), int smem_bytes, int max_ctas,
                    cudaStream_t stream, const TileGrid& g, Arguments... arguments) {
  const int ctas = RoundToHeadGroups(
      g, PersistentGridSize(kernel, g.num_tiles, Traits::kThreads, smem_bytes, max_ctas));
  LaunchPdl(kernel, ctas, Traits::kThreads, smem_bytes, stream, g, arguments...);
  return ctas;
}

// Calls `launch` with a value of the problem's element type.
template <typename Launch>
void DispatchHalfType(const LocalAttentionProblem& p, Launch launch) {
  if (p.type == DType::kBfloat16) {
    launch(__nv_bfloat16());
  } else {
    launch(__half());
  }
}

}  // namespace
}  // namespace sasa

#endif  // SASA_TF_NATIVE_CUDA_MMA_LAUNCH_CUH_
