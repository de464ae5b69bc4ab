// Launches the forward pass on tensor cores, see mma_forward.cuh.
#include <cuda_runtime.h>

#include "cuda/launch.h"
#include "cuda/mma_forward.cuh"
#include "cuda/mma_launch.cuh"
#include "local_attention.h"

namespace sasa {
namespace {

// The arrays are separate parameters, as nvcc ignores __restrict__ on the members of a struct.
template <typename Traits, typename Stores>
__global__ void __launch_bounds__(Traits::kThreads, Traits::kMinCtasPerSm)
    MmaForwardKernel(TileGrid g, const __grid_constant__ TileTensorMaps maps,
                     const typename Traits::Element* __restrict__ query,
                     const typename Traits::Element* __restrict__ key,
                     const typename Traits::Element* __restrict__ value,
                     const float* __restrict__ relative_rows,
                     const float* __restrict__ relative_columns,
                     typename Traits::Element* __restrict__ output, float* __restrict__ lse,
                     typename Traits::Element* __restrict__ pooled_output) {
  extern __shared__ __align__(1024) char memory[];
  MmaForwardCta<Traits, Stores>(g, maps, memory, query, key, value, relative_rows, relative_columns,
                                output, lse, pooled_output);
}

template <typename Traits, typename Stores>
void LaunchForward(const LocalAttentionProblem& p, const ForwardArrays& a, cudaStream_t stream) {
  using Element = typename Traits::Element;
  const auto kernel = MmaForwardKernel<Traits, Stores>;
  const TileGrid g = MakeMmaTileGrid<Traits>(p);
  const TileTensorMaps maps =
      EncodeTileTensorMaps<Traits>(kernel, p, p.has_key, a.key, p.qkv_parts, a.value, p.qkv_parts);
  LaunchMmaKernel<Traits>(kernel, QuerySmemLayout<Traits>::kBytes, g.num_tiles, stream, g, maps,
                          static_cast<const Element*>(a.query), static_cast<const Element*>(a.key),
                          static_cast<const Element*>(a.value), a.relative_rows, a.relative_columns,
                          static_cast<Element*>(a.output), a.lse,
                          static_cast<Element*>(a.pooled_output));
}

// Windows of 7 are tuned on an H100, the others on an H200.
struct ForwardTiles {
  // clang-format off
  static constexpr MmaTilesRow kRows[] = {
      // K, D, {warps, columns, CTAs, staged store, split rows}, largest width
      {3, 4, {4, 28, 6}},
      {3, 8, {4, 28, 7}},
      {3, 16, {4, 28, 4, true}},
      {3, 32, {4, 16, 4, true}},
      {3, 64, {4, 8, 3, true}},
      {5, 4, {4, 14, 5}},
      {5, 8, {4, 14, 6, false, true}},
      {5, 16, {7, 14, 2, true}},
      {5, 32, {4, 16, 3, true, true}},
      {5, 64, {2, 8, 3}},
      {7, 4, {4, 28, 5}},
      {7, 8, {4, 28, 5}},
      {7, 16, {7, 28, 2, true}},
      {7, 32, {4, 16, 4, true}, 16},
      {7, 32, {4, 32, 2, false, true}},
      {7, 64, {4, 8, 3, true}, 8},
      {7, 64, {4, 16, 2, true}},
      {9, 4, {4, 14, 5}},
      {9, 8, {4, 28, 3, false, true}},
      {9, 16, {4, 14, 3, true, true}},
      {9, 32, {4, 16, 2, true, true}},
      {9, 64, {2, 8, 2, true}},
      {11, 4, {4, 28, 4}},
      {11, 8, {4, 28, 4, false, true}},
      {11, 16, {4, 28, 2, false, true}},
      {11, 32, {2, 16, 3, true, true}},
      {11, 64, {4, 8, 2, true}},
  };
  // clang-format on
};

}  // namespace

void MmaForward(const LocalAttentionProblem& p, const ForwardArrays& arrays, cudaStream_t stream) {
  if (MmaRowForward(p, arrays, false, stream)) return;
  DispatchMmaTiles<ForwardTiles>(p, [&](auto traits) {
    using Traits = decltype(traits);
    // A kernel without pooling is a few percent faster for windows of 7, and for smaller ones with
    // heads 8 wide. There it is worth the time to compile it.
    constexpr int kKernel = Traits::kKernel;
    if constexpr (kKernel == 7 || (kKernel < 7 && Traits::kHeadDim == 8)) {
      if (p.pool_size == 1) return LaunchForward<Traits, StoreForTraining>(p, arrays, stream);
    }
    LaunchForward<Traits, StorePooledForTraining>(p, arrays, stream);
  });
}

}  // namespace sasa
