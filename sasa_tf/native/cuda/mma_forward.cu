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
  MmaForwardCta<Traits, Stores>(g, maps, memory, query, key, value, relative_rows,
                                relative_columns, output, lse, pooled_output);
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

// Tile configurations by head width, tuned on an H100.
struct ForwardD8 : MmaTileConfig {
  static constexpr int kHeadDim = 8, kWarps = 4, kTileColumns = 28, kMinCtasPerSm = 5;
};
struct ForwardD16 : MmaTileConfig {
  static constexpr int kHeadDim = 16, kWarps = 7, kTileColumns = 28, kMinCtasPerSm = 2;
  static constexpr bool kStagedStore = true;
};
struct ForwardD32 : MmaTileConfig {
  static constexpr int kHeadDim = 32, kWarps = 4, kTileColumns = 32, kMinCtasPerSm = 2;
  static constexpr bool kSplitRows = true;
};
struct ForwardD32Narrow : MmaTileConfig {  // images up to 16 pixels wide
  static constexpr int kHeadDim = 32, kWarps = 4, kTileColumns = 16, kMinCtasPerSm = 4;
  static constexpr bool kStagedStore = true;
};
struct ForwardD64 : MmaTileConfig {
  static constexpr int kHeadDim = 64, kWarps = 4, kTileColumns = 16, kMinCtasPerSm = 2;
  static constexpr bool kStagedStore = true;
};
struct ForwardD64Narrow : MmaTileConfig {  // images up to 8 pixels wide
  static constexpr int kHeadDim = 64, kWarps = 4, kTileColumns = 8, kMinCtasPerSm = 3;
  static constexpr bool kStagedStore = true;
};

// Calls `launch` with the traits of the fastest configuration.
template <typename Element, typename Launch>
void DispatchForwardTraits(const LocalAttentionProblem& p, Element, Launch launch) {
  if (p.head_dim == 8) return launch(MmaKernelTraits<Element, ForwardD8>());
  if (p.head_dim == 16) return launch(MmaKernelTraits<Element, ForwardD16>());
  if (p.head_dim == 32 && p.width <= 16) {
    return launch(MmaKernelTraits<Element, ForwardD32Narrow>());
  }
  if (p.head_dim == 32) return launch(MmaKernelTraits<Element, ForwardD32>());
  if (p.width <= 8) return launch(MmaKernelTraits<Element, ForwardD64Narrow>());
  launch(MmaKernelTraits<Element, ForwardD64>());
}

}  // namespace

void MmaForward(const LocalAttentionProblem& p, const ForwardArrays& arrays, cudaStream_t stream) {
  DispatchHalfType(p, [&](auto zero) {
    DispatchForwardTraits(p, zero, [&](auto traits) {
      using Traits = decltype(traits);
      const auto launch =
          p.pool_size == 1 ? LaunchForward<Traits, StoreForTraining>
                           : LaunchForward<Traits, StorePooledForTraining>;
      launch(p, arrays, stream);
    });
  });
}

}  // namespace sasa
